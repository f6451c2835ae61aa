"""How benchmarks measure, and what their runner leaves; what they measure is `make bench`'s."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from benchmarks import performance, run
from benchmarks.gpu import extraction
from benchmarks.marked import END
from benchmarks.measure import Row, alternate


def test_a_row_knows_whether_its_target_is_met() -> None:
    assert Row("a", 1, 2, 0.5, 0.6).ok is True
    assert Row("a", 1, 2, 0.5, 0.6, "at least").ok is False
    assert Row("a", 1, None, 1, None).ok is None


def test_sides_take_turns() -> None:
    calls: list[str] = []
    taken = alternate(lambda: calls.append("a"), lambda: calls.append("b"), repeats=3)
    assert calls == list("ababab") and len(taken) == 2 and all(seconds >= 0 for seconds in taken)


def test_every_module_has_rows() -> None:
    found = run.modules()
    assert {"gradients", "growth", "padding", "plan_cost", "projection", "latency", "load"} <= set(found)
    everywhere = [path.stem for name in run.FOLDERS for path in (Path(run.__file__).parent / name).glob("[!_]*.py")]
    assert sorted(everywhere) == sorted(found), "a name is a key of the results: no two may share one"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules that need no model: one fine, one broken."""
    folder = tmp_path / "benchmarks"
    (folder / "engine").mkdir(parents=True)
    source = "from benchmarks.measure import Row\ndef rows():\n    return [Row('fast', 1.0, 2.0, 0.5, 1.0)]\n"
    (folder / "engine" / "fine.py").write_text(source)
    (folder / "engine" / "broken.py").write_text("def rows():\n    raise ValueError('on purpose')\n")
    for name in ("__init__.py", "engine/__init__.py"):
        (folder / name).touch()
    for name in ("run.py", "measure.py"):
        (folder / name).write_text((Path(run.__file__).parent / name).read_text())
    monkeypatch.setattr(run, "HERE", folder)
    return folder


def measured(folder: Path, only: str) -> tuple[int, dict[str, object]]:
    """Exit code and results of a run of the modules."""
    out = folder / "results.json"
    try:
        run.main(only=only, data="", model="", threads=1, out=out)
    except run.typer.Exit as end:
        return end.exit_code, json.loads(out.read_text())
    return 0, json.loads(out.read_text())


def test_the_runner_writes_rows_versions_and_machine(modules: Path) -> None:
    code, found = measured(modules, "fine")
    assert code == 0
    expected = {"name": "fast", "value": 1.0, "baseline": 2.0, "ratio": 0.5, "target": 1.0, "ok": True}
    assert found["rows"] == {"fine": [expected | {"bound": "at most", "unit": "s", "note": ""}]}  # type: ignore[comparison-overlap]
    assert (found["data"], found["model"]) == ("demo", "demo")
    assert found["versions"]["torch"] and found["machine"]["threads"] == 1  # type: ignore[index]


def test_numbers_of_numpy_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("small", np.float32(0.5), None, np.float64(0.5), 1.0)
    monkeypatch.setattr(run, "import_module", lambda _: SimpleNamespace(rows=lambda: [row]))
    run.one("any", tmp_path / "rows.json")
    (written,) = json.loads((tmp_path / "rows.json").read_text())
    assert (written["value"], written["ratio"], written["ok"]) == (0.5, 0.5, True)


def test_a_folder_is_run_by_its_name(modules: Path) -> None:
    (modules / "serving").mkdir()
    (modules / "serving" / "quick.py").write_text((modules / "engine" / "fine.py").read_text())
    (modules / "serving" / "__init__.py").touch()
    code, found = measured(modules, "serving")
    assert code == 0 and list(found["rows"]) == ["quick"]  # type: ignore[call-overload]


def test_a_module_that_fails_fails_the_run_and_the_others_are_kept(modules: Path) -> None:
    assert measured(modules, "fine")[0] == 0
    code, found = measured(modules, "broken")
    assert code == 1 and list(found["rows"]) == ["fine"]  # type: ignore[call-overload]


def test_rows_of_another_machine_are_not_mixed_in(modules: Path) -> None:
    assert measured(modules, "fine")[0] == 0
    out = modules / "results.json"
    results = json.loads(out.read_text())
    results["machine"]["cpus"] = 0
    out.write_text(json.dumps(results))
    with pytest.raises(run.typer.BadParameter, match="rows of other machine"):
        measured(modules, "fine")
    assert json.loads(out.read_text()) == results


def test_the_page_has_a_table_of_the_results(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{performance.BEGIN}\nold\n{END}\nafter\n")
    row = {"name": "fast", "value": 1.0, "baseline": None, "ratio": 0.5, "target": 1.0, "ok": True}
    row |= {"bound": "at most", "unit": "s", "note": "why"}
    rows = {"projection": [row], "load": [row | {"name": "served"}]}
    results = {"rows": rows, "versions": {"torch": "2"}, "machine": {"cpus": 2}, "date": "d"}
    results |= {"data": "demo", "model": "given"}
    performance.write(results, "engine", page)
    text = page.read_text()
    assert "served" not in text
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "d; datasets: demo; base model: given; cpus 2, torch 2." in text
    assert "| fast | 1 s |  | 0.5 | <= 1 | ok | why |" in text


def test_tables_show_every_row() -> None:
    console = Console(width=120, record=True)
    base = {"value": 1.0, "baseline": 2.0, "ratio": 0.5, "target": 1.0, "bound": "at most", "unit": "s", "note": ""}
    console.print(run.table([base | {"name": "one", "ok": True}, base | {"name": "two", "ok": False}]))
    shown = console.export_text()
    assert "one" in shown and "missed" in shown


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(extraction.torch.cuda, "is_available", lambda: False)
    extraction.main(out=None)
    assert capsys.readouterr().out == "torch sees no GPU: nothing is measured\n"
