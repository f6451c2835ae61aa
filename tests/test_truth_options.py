"""What the studies refuse before they run for hours, and which rows of an earlier call they keep."""

from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks.truth.__main__ import app
from benchmarks.truth.ablations import judged_alike
from benchmarks.truth.recipes import RECIPES, Recipe
from benchmarks.truth.setting import DATASETS


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["first-order", "--bases", "float32,int8"], "unknown bases: int8; there are: float32, nf4"),
        (["recipes", "--of", "1:3"], "no recipe: 1:3; one is 2:2:0.001:auto, or with a rank"),
        (["recipes", "--of", "1:3:0.001:auto:4:5"], "no recipe: 1:3:0.001:auto:4:5"),
        (["sources", "--targets", "sst2,imdb"], "unknown targets: imdb; there are: clinc_domain"),
        (["ablations", "--only", "no such"], "unknown settings: no such; there are: default"),
        (["study", "--seeds", "1"], "should be greater than or equal to 2"),
        (["--quantization", "int8", "study"], "model.quantization: Input should be 'nf4' or 'none'"),
        (["recipes", "--of", "1:3:0.001:auto:0"], "lora.rank: Input should be greater than 0"),
        (["recipes", "--of", "1:3:0:auto"], "training.learning_rate: Input should be greater than 0"),
        (["--datasets", "sst2,wic", "recipes", "--of", "1:3:0.001:3"], "groups is 3, but there are only 2 datasets"),
        (["--datasets", "sst2,wic", "affinities"], "a pair of 2 datasets is in only 1 subsets of 2"),
        (["--datasets", f"{DATASETS},rte", "affinities"], "name at most 12 datasets"),
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
    row = {"counts": {"random": 69}, "seeds": 3, "reliability": {"value": 0.7}}
    found = {"counts": row["counts"], "seeds": 3, "overall": {"reliability": row["reliability"]}}
    other = {"rank 4": {**row, "seeds": 4}, "rank 16": {**row, "reliability": {"value": 0.6}}, "no such setting": row}
    assert judged_alike({"default": row, "one part": row, **other}, found) == {"one part": row}  # its own is made anew
    assert judged_alike({"one part": row}, {**found, "counts": {"random": 24}}) == {}


def test_every_command_is_told_of_in_the_documentation() -> None:
    told = (Path(__file__).parents[1] / "docs" / "trust.md").read_text()
    rows = [line.split("`")[1].split()[0] for line in told.splitlines() if line.startswith("| `")]
    assert rows and set(rows) == set(get_command(app).commands)
