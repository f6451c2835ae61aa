"""What the studies refuse before they run for hours, and which rows of an earlier call they keep."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.truth.__main__ import app
from benchmarks.truth.ablations import alike
from benchmarks.truth.recipes import RECIPES, Recipe


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["first-order", "--bases", "float32,int8"], "unknown bases: int8; there are: float32, nf4"),
        (["recipes", "--of", "1:3"], "no recipe: 1:3; one is 2:2:0.001:auto, or with a rank"),
        (["recipes", "--of", "1:3:0.001:auto:4:5"], "no recipe: 1:3:0.001:auto:4:5"),
        (["sources", "--targets", "sst2,imdb"], "unknown targets: imdb; there are: clinc_domain"),
        (["ablations", "--only", "no such"], "unknown settings: no such; there are: default"),
        (["calibration"], "there is no study.json in"),
        (["sizes"], "run `study` first"),
        (["--datasets", "sst2,imdb", "study"], "unknown datasets: imdb"),
    ],
)
def test_a_name_that_is_none_is_refused_at_once(asked: list[str], told: str, tmp_path: Path) -> None:
    common = ["--data", "d", "--model", "m", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, [*common, *asked], env={"COLUMNS": "400"})
    assert answer.exit_code == 2
    assert told in answer.output
    assert not list(tmp_path.iterdir())


def test_recipes_are_read_as_they_are_written() -> None:
    assert Recipe.parse("0.5:3:0.002:4:16") == Recipe(0.5, 3, 0.002, 4, 16)
    assert Recipe.parse(RECIPES[0]) == Recipe(2, 2, 0.001, "auto")
    assert Recipe.parse("1:3:0.001:auto:4").lora == {"rank": 4, "alpha": 8}


def test_ablations_keep_rows_that_the_same_fine_tunes_judged() -> None:
    row = {"counts": {"random": 69}, "seeds": 3}
    kept = {"default": row, "one part": row, "rank 4": {**row, "seeds": 4}, "no such setting": row}
    assert alike(kept, row) == {"one part": row}  # the default's is made anew
    assert alike(kept, {**row, "counts": {"random": 24}}) == {}
