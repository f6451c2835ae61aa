"""Do estimates also rank subsets of other sizes? Random subsets of each size, fine-tuned, beside those of `study`.

Chosen groups are of any size; the study's random subsets are of one.
"""

from collections.abc import Sequence
from typing import Any

import typer

from benchmarks.truth.setting import Setting
from benchmarks.truth.study import judged_by, measured
from components.validation.verdict import ONE_FIFTH_PERCENT

SIZES = (2,)


def sizes(to: Setting, of: Sequence[int], each: int, seeds: int) -> None:
    """Fine-tune random subsets of each number of datasets, and keep how well estimates tell their losses.

    Args:
        of: numbers of datasets.
        each: about so many subsets of a size hold a dataset, so that these sizes have as many losses to tell.
        seeds: fine-tunes of a subset.

    Raises:
        typer.BadParameter: `study` has not run, is of another model, data or recipe, or of a size that is asked for.
    """
    study, n = to.needed("study"), len(to.datasets)
    to.refuse_other("study", study)
    to.refuse_to_mix("sizes")
    configs = {}
    for size in of:
        sample = {"subsets": round(each * n / size), "pairs": 0, "partitions": 0, "seeds": seeds}
        share = {"subset_size": size / n}
        configs[size] = to.config(surrogate=share, validation={**sample, "distances": [ONE_FIFTH_PERCENT]})
    if study["subset_size"] in configs:
        raise typer.BadParameter(f"subsets of {study['subset_size']} datasets are in study.json")
    to.add("sizes", str(study["subset_size"]), row(study))
    for size, config in configs.items():
        to.add("sizes", str(size), row(measured(to, config)[0]))


def row(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one size, with what has to stand beside them."""
    predictors = found["overall"]["predictors"]
    return {
        **judged_by(found),
        "noise_error": found["overall"]["noise_error"],
        "surrogate": predictors["surrogate"],
        "constant": predictors["constant"],
    }
