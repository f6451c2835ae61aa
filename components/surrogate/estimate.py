"""The step `estimate`: what a joint fine-tune on each subset would reach, and the affinity matrix from it."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from components.artifacts import Artifact
from components.group_estimator import estimated_from, group_estimator
from components.inputs import Prepared, features_of, read_datasets
from components.step import Step, read_references
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity

TABLE = "estimates.safetensors"


def run(config: str, run_name: str, datasets: Path, features: list[Path], estimates: Path) -> None:
    """Estimate all subsets; pass on ``affinity``: T with standard errors, and the table of subsets and estimates.

    Also kept is what each estimate was read off: the solution (``weights``, float32 [K, dim]) and the lambda of each
    of its P parts (``lambda``, float64 [P, K], and the position ``lambda_index`` [P, 3, K] in the path), so that it
    can be compared with a real fine-tune.
    """
    with Step("estimate", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        found = features_of(step, read_references(features), prepared.names)
        inputs = {
            **estimated_from(step.config, prepared.digests, found),
            "surrogate": step.config.surrogate.model_dump(exclude={"lambdas", "width"}),  # they are in the line above
        }
        step.obtain("affinity", "affinity", inputs, lambda folder: _write(step, prepared, found, folder))
        step.pass_on(estimates)


def _write(step: Step, prepared: Prepared, found: dict[str, Artifact], folder: Path) -> dict[str, Any]:
    settings, names, seed = step.config.surrogate, prepared.names, step.config.seed
    estimator = group_estimator(step.config, prepared, found)
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
        "lambda": np.take_along_axis(estimator.lambdas(members), estimated.lambda_index[:, 0], axis=0),
        "weights": estimated.weights,
        "affinity": matrix.matrix,
        "standard_errors": matrix.standard_errors,
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / TABLE)
    step.flops += estimator.flops
    chosen = np.bincount(estimated.lambda_index[:, 0].ravel(), minlength=len(settings.lambdas))
    return {
        "datasets": names,
        "subsets": len(members),
        "lambda_chosen": {str(value): int(count) for value, count in zip(settings.lambdas, chosen, strict=True)},
        "matrix": matrix.matrix.tolist(),
        "standard_errors": matrix.standard_errors.tolist(),
        "flops": estimator.flops,
    }
