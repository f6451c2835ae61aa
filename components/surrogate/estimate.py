"""The step `estimate`: what a joint fine-tune on each subset would reach, and the affinity matrix from it."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from components.artifacts import Artifact
from components.inputs import features_of, read_split
from components.step import Step, read_references
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity

TABLE = "estimates.safetensors"


def run(config: str, run_name: str, datasets: Path, features: list[Path], estimates: Path) -> None:
    """Estimate all subsets; pass on ``affinity``: T with standard errors, and the table of subsets and estimates.

    Also kept is what each estimate was read off: the solution (``weights``, float32 [K, dim]) and its lambda (position
    ``lambda_index`` [3, K] in the path, times ``lambda_unit``), so that it can be compared with a real fine-tune.
    """
    with Step("estimate", config, run_name) as step:
        names = list(read_references(datasets))
        found = features_of(step, read_references(features), names)
        settings = step.config.surrogate
        inputs = {
            "features": {name: artifact.digest for name, artifact in found.items()},
            "order": names,  # of the columns: a key sorts what is in a dictionary
            "surrogate": settings.model_dump(),
            "seed": step.config.seed,
        }
        step.obtain("affinity", "affinity", inputs, lambda folder: _write(step, found, folder))
        step.pass_on(estimates)


def _write(step: Step, found: dict[str, Artifact], folder: Path) -> dict[str, Any]:
    from components.estimator import GroupEstimator  # brings torch, which a step that is reused does without

    settings, names, seed = step.config.surrogate, list(found), step.config.seed
    estimator = GroupEstimator(
        read_split(found, "train"), read_split(found, "validation"), settings.lambdas, seed=seed, names=names
    )
    members = choose_subsets(
        len(names), settings.subsets, settings.subset_size, settings.pair_coverage, settings.exhaustive_up_to, seed
    )
    sampled = len(members) - len(names) - 1
    if len(names) > settings.exhaustive_up_to and sampled != settings.subsets:
        step.say(f"{sampled} subsets instead of {settings.subsets}: as many as the pairs' coverage takes and there are")
    estimated = estimator.solve(members, progress=step.progress)
    matrix = affinity(members, estimated.loss[0], names)
    arrays = {
        "members": members,
        "loss": estimated.loss,
        "lambda_index": estimated.lambda_index,
        "weights": estimated.weights,
        "affinity": matrix.matrix,
        "standard_errors": matrix.standard_errors,
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / TABLE)
    chosen = np.bincount(estimated.lambda_index[0], minlength=len(settings.lambdas))
    return {
        "datasets": names,
        "subsets": len(members),
        "lambda_unit": float(estimator.lambdas[0] / settings.lambdas[0]),
        "lambda_chosen": {str(value): int(count) for value, count in zip(settings.lambdas, chosen, strict=True)},
        "matrix": matrix.matrix.tolist(),
        "standard_errors": matrix.standard_errors.tolist(),
    }
