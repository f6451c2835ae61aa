"""The command as a user meets it: what it prints, where, and with which exit code."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner, Result

import pipelines
from components import __version__
from components.cluster_config import StepResources
from components.config import RunConfig
from components.config_file import read_config
from components.errors import UserError
from pipelines.cli import app
from pipelines.commands.common import reported
from pipelines.crash import PipelineCrash
from pipelines.invocation import typed
from pipelines.local import locked

BASE_MODEL = Path(pipelines.__file__).parent / "demo" / "base_model"
WORDS = ("red", "green", "blue", "black", "white", "pink", "grey", "brown")


def loraloom(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config with one sound dataset and a real base model."""
    triples = itertools.product(WORDS, repeat=3)
    rows = [{"text": f"a {a}, {b} and {c} house", "label": "yes" if a < b else "no"} for a, b, c in triples]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "config.yaml"
    path.write_text(f"name: small\nmodel: {{id: {BASE_MODEL}}}\ndatasets:\n  - {{name: a, path: a.jsonl}}\n")
    return path


def example_config(**more: Any) -> RunConfig:
    datasets = [{"name": name, "path": "/data"} for name in ("a", "b", "c")]
    return RunConfig.model_validate({"model": {"id": "x"}, "datasets": datasets, **more})


def test_help_shows_every_command_and_version_is_known() -> None:
    shown = loraloom("--help")
    assert shown.exit_code == 0
    for command in ("init", "check", "plan", "run", "report", "ui", "schema", "compile", "demo", "gc"):
        assert f"│ {command} " in shown.output
        assert loraloom(command, "--help").exit_code == 0
    assert loraloom("--version").output == f"loraloom {__version__}\n"


def test_init_writes_a_config_whose_values_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert loraloom("init", path).exit_code == 0
    written, default = read_config(path), example_config()
    assert written.model.model_dump(exclude={"id"}) == default.model.model_dump(exclude={"id"})
    others = {"name", "datasets", "resources", "model"}
    assert written.model_dump(exclude=others) == default.model_dump(exclude=others)
    train = written.resources["train"].model_dump(exclude={"gpus", "memory"})
    assert train == StepResources().model_dump(exclude={"gpus", "memory"})
    assert path.read_text().startswith("# loraloom run -c config.yaml\n")
    shown = loraloom("init", path)
    assert (shown.exit_code, f"error: {path} exists already" in shown.stderr) == (2, True)


def test_starter_names_every_setting(tmp_path: Path) -> None:
    loraloom("init", tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    told = dict(re.findall(r"(?ms)^(\w+):(.*?)(?=^\w|\Z)", text))  # section -> its text, comments included
    assert told.keys() == RunConfig.model_fields.keys()
    missing = [
        f"{section}: {setting}"
        for section, field in RunConfig.model_fields.items()
        for setting in settings_within(field.annotation, beside=set(RunConfig.model_fields) - {section})
        if not re.search(rf"\b{setting}:", told[section])
    ]
    assert missing == []


def settings_within(annotation: Any, beside: set[str]) -> set[str]:
    """Names of all settings under an annotation, through lists, dictionaries and sections within sections.

    A section that stands at the file's top too (``beside``) is explained there.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        inside = [settings_within(field.annotation, beside) for name, field in fields.items() if name not in beside]
        return set(fields).union(*inside)
    return set().union(*(settings_within(part, beside) for part in get_args(annotation)))


def test_schema_is_what_the_config_is_checked_with() -> None:
    assert json.loads(loraloom("schema").output) == RunConfig.model_json_schema()


def test_a_config_error_is_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {id: x, dtype: int8}\ntraining: {epochs: 0}\n")
    code = """
import json, sys
from pipelines.cli import app
try:
    app(["check", "-c", sys.argv[1]])
except SystemExit as end:
    heavy = {"torch", "transformers", "kfp", "mlflow", "pandas", "pyarrow", "numpy", "scipy"}
    print(json.dumps([end.code, sorted(heavy & set(sys.modules))]))
"""
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == [2, []]
    assert ended.stderr.splitlines() == [
        f"error: 3 problems in {path}",
        f"  {path}:1: datasets: is required",
        f"  {path}:1: model.dtype: should be 'bfloat16' or 'float32', not 'int8'",
        f"  {path}:2: training.epochs: should be greater than 0, not 0",
        "-> `loraloom schema` lists every setting",
    ]


def test_check_of_a_sound_config_shows_the_data(config_file: Path) -> None:
    shown = loraloom("check", "-c", config_file)
    assert shown.exit_code == 0
    header, row, verdict, hint = (line.split() for line in shown.output.splitlines())
    assert header == ["dataset", "train", "validation", "test", "dropped", "labels", "metric"]
    assert (row[0], sum(int(count) for count in row[1:5]), row[5:]) == ("a", 512, ["2", "accuracy"])
    assert (verdict[-1], hint[-1]) == ("fine", str(config_file))


def test_check_lists_problems_of_model_and_data_together(config_file: Path, tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("a") as handle:
        handle.write('{"text": "no label"}\nnot json\n')
    text = config_file.read_text().replace(str(BASE_MODEL), str(tmp_path))
    config_file.write_text(text + "  - {name: b, path: nowhere.csv}\n")
    shown = loraloom("check", "-c", config_file)
    assert shown.exit_code == 2
    for words in (
        "has no *.safetensors",
        "has no tokenizer",
        "has no config.json",
        "a.jsonl:513",
        "a.jsonl:514",
        "nowhere.csv",
    ):
        assert words in shown.stderr
    assert shown.stderr.startswith("error: 6 problems in the data or the model of")


@pytest.mark.parametrize(("command", "option"), [("run", "--root"), ("plan", "--root"), ("report", "-o"), ("init", "")])
def test_a_place_that_cannot_be_written_is_the_users_to_mend(
    config_file: Path, tmp_path: Path, command: str, option: str
) -> None:
    (tmp_path / "summary.json").write_text('{"name": "x"}')
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "inside"
    options = [place, "--force"] if command == "init" else ["-c", config_file, option, place]
    shown = loraloom(command, *options, *(["--root", tmp_path] if command == "report" else []))
    assert shown.exit_code == 2
    said = f"there is no folder {place.parent}" if command == "init" else f"{place} cannot be written: Not a directory"
    assert shown.stderr.splitlines()[0] == f"error: {said}"
    assert shown.stderr.splitlines()[-1].startswith("-> ")


def test_dry_run_prints_the_steps_and_runs_nothing(config_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shown = loraloom("run", "-c", config_file, "--root", root, "--dry-run")
    assert shown.exit_code == 0
    steps = " ".join(line.split()[1] for line in shown.output.splitlines()[:-1])
    assert steps == "prepare warm_start extract estimate partition train boost weigh servable evaluate register promote"
    assert "promote     to champion, if better on average, within margin and floor\n" in shown.output
    assert not root.exists()


def test_two_runs_on_one_root_are_refused(config_file: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "root"):
        shown = loraloom("run", "-c", config_file, "--root", tmp_path / "root")
    assert shown.exit_code == 2
    assert shown.stderr.splitlines()[0].startswith(f"error: {tmp_path}/root is in use by another run")


def test_report_is_written_from_the_summary(config_file: Path, tmp_path: Path) -> None:
    missing = loraloom("report", "-c", config_file, "--root", tmp_path)
    assert missing.exit_code == 2
    assert missing.stderr.splitlines()[-1] == f"-> {typed('run', '-c', config_file, '--root', tmp_path)}"
    (tmp_path / "summary.json").write_text(json.dumps({"name": "colour-words"}))
    assert loraloom("report", "-c", config_file, "--root", tmp_path, "-o", tmp_path / "page.html").exit_code == 0
    assert "colour-words" in (tmp_path / "page.html").read_text()


def test_ui_needs_an_embedded_store_with_a_run(config_file: Path, tmp_path: Path) -> None:
    assert loraloom("ui", "-c", config_file, "--root", tmp_path).stderr.splitlines() == [
        f"error: no run in {tmp_path} yet",
        f"-> {typed('run', '-c', config_file, '--root', tmp_path)}",
    ]
    config_file.write_text(config_file.read_text() + "tracking: {uri: 'https://mlflow.example.org'}\n")
    shown = loraloom("ui", "-c", config_file)
    assert (shown.exit_code, "error: tracking.uri is https://mlflow.example.org" in shown.stderr) == (2, True)


def test_a_failure_fits_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    problems = tuple(f"a.jsonl:{line}: no label [x]" for line in range(1, 41))
    with pytest.raises(BaseException) as caught, reported(debug=False):
        raise UserError("dataset 'a' cannot be used", remedy="mend it", problems=problems)
    assert getattr(caught.value, "exit_code", None) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["error: dataset 'a' cannot be used", "  a.jsonl:1: no label [x]"]
    assert lines[-2:] == ["  ... and 25 more: `loraloom check` lists them all", "-> mend it"]
    assert len(lines) == 18


def test_one_dataset_has_no_company_to_choose(config_file: Path) -> None:
    shown = loraloom("select", "--target", "a", "-c", config_file)
    assert (shown.exit_code, shown.stderr.splitlines()) == (
        2,
        ["error: one dataset has no subsets to compare", "-> add others to the config"],
    )


@pytest.mark.parametrize("debug", [False, True])
def test_traceback_only_with_debug(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    with pytest.raises(BaseException) as caught, reported(debug=debug):
        raise ZeroDivisionError("no one foresaw this")
    assert getattr(caught.value, "exit_code", None) == 1
    shown = capsys.readouterr().err
    assert "error: internal error: ZeroDivisionError: no one foresaw this" in shown
    assert ("Traceback" in shown) is debug


@pytest.mark.parametrize("debug", [False, True])
def test_a_crashed_step_is_told_in_three_lines(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    crash = PipelineCrash(("train group-0 crashed: RuntimeError: no kernel",), Path("logs/a.log"), ("Traceback", "..."))
    with pytest.raises(BaseException) as caught, reported(debug=debug):
        raise crash
    assert getattr(caught.value, "exit_code", None) == 1
    hint = "" if debug else "run again with --debug for the traceback; "
    assert capsys.readouterr().err.splitlines() == [
        "error: train group-0 crashed: RuntimeError: no kernel",
        "  the whole log: logs/a.log",
        f"-> {hint}what is finished is kept, and the same command goes on from it",
    ]


def test_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseException) as caught, reported(debug=False):
        raise KeyboardInterrupt
    assert getattr(caught.value, "exit_code", None) == 130
    assert capsys.readouterr().err == "error: stopped\n-> the same command goes on from what is finished\n"


def test_check_compares_gradients_on_the_users_own_model_and_data(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("{id: ", "{quantization: none, dtype: float32, id: "))
    shown = loraloom("check", "-c", config_file, "--gradients")
    assert shown.exit_code == 0, shown.output
    assert "gradients of 16 rows, 84 LoRA matrices each, in a batch and one at a time: largest relative" in shown.output
    assert "They agree" in shown.output and f"{config_file} is fine" in shown.output


@pytest.mark.parametrize("command", ["plan", "run", "demo"])
def test_every_command_that_runs_steps_can_run_them_in_containers(
    command: str, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    where = [tmp_path / "demo"] if command == "demo" else ["-c", config_file, "--root", tmp_path / "root"]
    ended = loraloom(command, *where, "--runner", "docker")
    assert (ended.exit_code, "no Docker engine answers" in ended.stderr) == (2, True)


@pytest.mark.parametrize("command", ["lineage", "history", "rollback", "gc", "export"])
def test_who_only_looks_makes_no_store(command: str, config_file: Path, tmp_path: Path) -> None:
    needed = {"rollback": ["-m", "why"], "export": ["-o", tmp_path / "out"]}
    shown = loraloom(command, "-c", config_file, "--root", tmp_path / "root", *needed.get(command, []))
    assert shown.exit_code == 2
    assert f"error: no run has been recorded in {tmp_path}/root/mlflow.db" in shown.stderr
    assert not (tmp_path / "root").exists()
