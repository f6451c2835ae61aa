"""A config on its way to a step: inline, or by reference when it is large."""

import hashlib
import json
from pathlib import Path

import pytest

from components.config import RunConfig
from components.config_transport import INLINE_BYTES, pack, unpack
from components.errors import UserError
from components.step import Step, read_records


def config(root: Path, labels: int) -> RunConfig:
    entry = {"name": "a", "path": "/data/ä", "labels": [f"label number {i}" for i in range(labels)]}
    settings = {"model": {"id": "x"}, "datasets": [entry], "storage": {"uri": str(root / "store")}}
    return RunConfig.model_validate(settings)


def test_a_small_config_travels_whole(tmp_path: Path) -> None:
    small = config(tmp_path, 3)
    assert pack(small) == small.model_dump_json()
    assert unpack(pack(small)) == small
    assert not (tmp_path / "store/configs").exists()


def test_a_large_config_is_put_into_the_store(tmp_path: Path) -> None:
    large = config(tmp_path, 2000)
    data = large.model_dump_json().encode()
    digest = hashlib.sha256(data).hexdigest()
    packed = pack(large)
    assert len(data) > INLINE_BYTES > 10 * len(packed)
    assert json.loads(packed) == {
        "config_key": f"configs/{digest}.json",
        "sha256": digest,
        "storage": large.storage.model_dump(),
    }
    assert (tmp_path / f"store/configs/{digest}.json").read_bytes() == data
    assert unpack(packed) == large


def test_the_limit_is_counted_in_bytes(tmp_path: Path) -> None:
    bare = config(tmp_path, 2)
    room = INLINE_BYTES - len(bare.model_dump_json().encode())
    entry = bare.datasets[0]

    def with_path(path: str) -> RunConfig:
        return bare.model_copy(update={"datasets": [entry.model_copy(update={"path": f"{entry.path}{path}"})]})

    assert "config_key" not in json.loads(pack(with_path("x" * room)))
    assert "config_key" in json.loads(pack(with_path("x" * (room + 1))))
    assert "config_key" in json.loads(pack(with_path("ä" * (room // 2 + 1))))  # fewer letters, more bytes


def test_a_step_reads_its_config_by_reference(tmp_path: Path) -> None:
    large = config(tmp_path, 2000)
    with Step("prepare", pack(large), "run-1") as step:
        assert step.config == large
    assert [record["step"] for record in read_records(step.store, "run-1")] == ["prepare"]


def test_a_copy_that_is_gone_or_another_is_refused(tmp_path: Path) -> None:
    packed = pack(config(tmp_path, 2000))
    copy = tmp_path / "store" / json.loads(packed)["config_key"]
    copy.write_bytes(copy.read_bytes().replace(b"label number 7", b"label number 8"))
    with pytest.raises(UserError, match="does not match its checksum"):
        unpack(packed)
    copy.unlink()
    with pytest.raises(UserError, match=r"is not at file:.* any more"):
        unpack(packed)
