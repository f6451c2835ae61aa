"""Which ensemble folders are read, and which are refused because another release means something else by them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from components import __version__
from components.errors import UserError
from components.serving.description import SCHEMA, read_description


def write(folder: Path, **told: Any) -> Path:
    (folder / "ensemble.json").write_text(json.dumps({"schema": SCHEMA, "loraloom_version": __version__} | told))
    return folder


def test_its_own_is_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_description(write(tmp_path, name="desk"))["name"] == "desk"
    assert not caplog.records


@pytest.mark.parametrize(("made_by", "said"), [("0.0.1", "loraloom 0.0.1"), (None, "an older loraloom")])
def test_another_release_with_the_same_layout_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, made_by: str | None, said: str
) -> None:
    with caplog.at_level(logging.WARNING):
        read_description(write(tmp_path, loraloom_version=made_by))
    assert [record.getMessage() for record in caplog.records] == [
        f"the ensemble was made by {said}; loraloom {__version__} answers"
    ]


def test_the_layout_before_temperatures_is_read_at_temperature_one(tmp_path: Path) -> None:
    groups = [{"name": "group-0"}]
    found = read_description(write(tmp_path, schema=1, groups=groups, weights={"mood": [1.0], "pair": [1.0]}))
    assert found["temperatures"] == {"mood": 1.0, "pair": 1.0} and found["members"] == groups
    assert found["schema"] == SCHEMA


def test_the_layout_whose_members_were_groups_is_read(tmp_path: Path) -> None:
    told = {"groups": [{"name": "group-0"}], "weights": {"mood": [1.0]}, "temperatures": {"mood": 2.0}}
    found = read_description(write(tmp_path, schema=2, **told))
    assert found["members"] == told["groups"] and found["temperatures"] == {"mood": 2.0}
    assert found["schema"] == SCHEMA and "groups" not in found


def test_another_layout_is_refused_with_the_release_that_reads_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"made by loraloom 9.0.0 in layout 99; this is loraloom {__version__}") as told:
        read_description(write(tmp_path, schema=99, loraloom_version="9.0.0"))
    assert told.value.remedy.startswith("use loraloom 9.0.0 for it, or register it anew")
