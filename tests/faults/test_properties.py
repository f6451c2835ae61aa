"""Whatever comes in: readers and checks end in records or in a message for the user, and never otherwise."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from components.config import DatasetConfig, RunConfig, StorageConfig
from components.config_file import read_config
from components.data.prepare import prepare
from components.data.split import normalise, row_id
from components.data.validate import alike_problems
from components.ensemble.weights import fit_weights
from components.errors import UserError
from components.formats import FORMATS, Problem
from components.gradients.projection import Projection
from components.inside import inside

often = hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
SETTINGS = sorted(
    {name for section in RunConfig.model_fields.values() for name in getattr(section.annotation, "model_fields", {})}
    | set(RunConfig.model_fields)
)
keys = st.sampled_from(SETTINGS) | st.text(max_size=8)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@often
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_as_a_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:  # nothing so short names a model and a dataset by chance
        read_config(path)
    assert str(path) in str(caught.value)


@often
@given(st.dictionaries(keys, values, max_size=5))
def test_any_settings_of_a_config(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "config.yaml"
    sound = {"model": {"id": "m"}, "datasets": [{"name": "a", "path": "a"}]}
    path.write_text(yaml.safe_dump({**sound, **content}, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    try:
        config = read_config(path)
    except UserError as error:
        assert error.problems or error.what
        assert "Traceback" not in str(error)
    else:
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


@often
@given(st.sampled_from([".jsonl", ".csv", ".parquet"]), st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_as_data(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"data{ending}"
    path.write_bytes(content)
    try:
        for number, values in FORMATS[ending](path, path.name, ["text", "label"]):
            assert number > 0
            assert isinstance(values, dict | Problem)
    except UserError as error:
        assert path.name in str(error)


@often
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "label", "x"]), scalars.filter(lambda v: not hasattr(v, "year")), max_size=3
        ),
        max_size=30,
    )
)
def test_any_records(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match="dataset 'a' cannot be used") as caught:  # thirty rows are too few
        prepare(DatasetConfig(name="a", path="a.jsonl"), StorageConfig(), tmp_path)
    assert caught.value.problems


@given(st.text(), st.text())
def test_row_ids_follow_the_normalised_text(one: str, other: str) -> None:
    ids = [row_id({"text": text}) for text in (one, other)]
    assert all(0 <= number < 2**63 for number in ids)
    assert (ids[0] == ids[1]) == (normalise(one) == normalise(other))


@given(st.lists(st.text(max_size=5), unique=True, max_size=8))
def test_labels_that_are_alike_are_all_found(labels: list[str]) -> None:
    alike = {frozenset(label for label in labels if normalise(label) == normalise(one)) for one in labels}
    assert len(alike_problems(labels)) == sum(len(group) > 1 for group in alike)


@given(st.integers(0, 2**31), st.sampled_from(["count_sketch", "rademacher"]), st.floats(-3, 3), st.floats(-3, 3))
@hypothesis_settings(max_examples=30, deadline=None)
def test_projections_are_linear(seed: int, kind: Any, a: float, b: float) -> None:
    projection = Projection(8, seed, kind, torch.device("cpu"))
    x, y = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed % 1000))

    def projected(gradient: torch.Tensor) -> torch.Tensor:
        sums = projection.sums(3)
        projection.accumulate("layer.A", gradient, sums)
        return projection.projected(sums)

    torch.testing.assert_close(projected(a * x + b * y), a * projected(x) + b * projected(y), atol=1e-3, rtol=1e-3)


@given(st.integers(1, 4), st.integers(2, 5), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 300))
@hypothesis_settings(max_examples=40, deadline=None)
def test_weights_lie_on_the_simplex(groups: int, classes: int, rows: int, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    start = random.normal(size=(rows, classes)) * scale
    increments = random.normal(size=(groups, rows, classes)) * scale
    row = fit_weights(start, increments, random.integers(0, classes, rows), first=0, seed=0)
    assert row.weights.shape == (groups,)
    assert row.weights.min() >= 0
    assert math.isclose(row.weights.sum(), 1, abs_tol=1e-9)
    assert 1 <= row.temperature <= 100 * (1 + 1e-12)


@often
@given(st.text(max_size=30))
def test_a_name_is_inside_or_refused(tmp_path: Path, name: str) -> None:
    try:
        found = inside(tmp_path, name)
    except (UserError, ValueError):  # ValueError: a NUL, which no path holds
        return
    assert found.resolve().is_relative_to(tmp_path.resolve())
