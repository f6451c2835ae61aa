"""A real S3 server (OpenStack Swift, which checks signatures) behind a proxy that misbehaves."""

import datetime
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from components import s3_store
from components.artifacts import find, load, publish
from components.errors import UserError
from components.object_store import LocalStore, open_store
from components.s3_store import S3Store
from components.trouble import told
from tests.faults.conftest import Finished, digests
from tests.faults.kill import run_once
from tests.faults.proxy import (
    Fault,
    FaultProxy,
    corrupt,
    drip,
    hang,
    proxied,
    refuse,
    reset,
    reset_after,
    truncate,
)
from tests.integration.servers import S3Server

CONTENT = bytes(range(256)) * 400
PART = 8 * 2**20  # above this size boto3 sends a file in parts
BUSY, BROKEN = refuse(503, "SlowDown"), refuse(500, "InternalError")


@pytest.fixture
def proxy(credentials: S3Server) -> Iterator[FaultProxy]:
    with proxied(credentials.endpoint) as running:
        yield running


Patience = Callable[[float], S3Store]


@pytest.fixture
def patient_for(proxy: FaultProxy, credentials: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Opens a store behind the proxy that waits for so many seconds, and sleeps hardly at all between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    storage = credentials.storage(f"faults/{tmp_path.name}", endpoint_url=proxy.endpoint)

    def opened(seconds: float) -> S3Store:
        monkeypatch.setattr(s3_store, "SECONDS_OF_SILENCE", seconds)
        store = open_store(storage, tmp_path)
        assert isinstance(store, S3Store)
        return store

    return opened


@pytest.fixture
def store(patient_for: Patience) -> S3Store:
    """As patient as in production, so that a busy machine is not taken for a silent server."""
    return patient_for(s3_store.SECONDS_OF_SILENCE)


@pytest.mark.parametrize(
    ("faults", "patience"),
    [
        pytest.param([BUSY] * 4, 60, id="503-burst"),
        pytest.param([BROKEN] * 4, 60, id="500-burst"),
        pytest.param([reset] * 3, 60, id="reset"),
        pytest.param([truncate] * 3, 60, id="truncated-body"),
        pytest.param([drip(6)], 4, id="slow-body"),
        pytest.param([hang(5), hang(5)], 4, id="hanging"),
        pytest.param([BUSY, reset, truncate, BROKEN], 60, id="one-after-another"),
    ],
)
def test_what_passes_is_waited_for(
    faults: list[Fault], patience: float, store: S3Store, patient_for: Patience, proxy: FaultProxy, tmp_path: Path
) -> None:
    store.write("k", CONTENT)
    waiting = patient_for(patience)
    proxy.faults["GET"] = list(faults)
    assert waiting.read("k") == CONTENT
    assert proxy.faults["GET"] == []
    proxy.faults["GET"] = list(faults)
    waiting.download("k", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [BUSY, BROKEN, reset, reset_after])
def test_a_write_is_done_in_the_end_and_once(fault: Fault, store: S3Store, proxy: FaultProxy) -> None:
    proxy.faults["PUT"] = [fault] * 3
    store.write("k", CONTENT)
    assert store.read("k") == CONTENT
    proxy.faults["PUT"] = [fault] * 2
    store.create("k", b"somebody else's")
    assert store.read("k") == CONTENT


UNREACHABLE = "cannot be reached at http://127.0.0.1"
STAYS = [
    pytest.param([BUSY] * 5, 60, "SlowDown", id="503"),
    pytest.param([reset] * 5, 60, UNREACHABLE, id="reset"),
    pytest.param([truncate] * 5, 60, UNREACHABLE, id="truncated-body"),
    pytest.param([hang(2)] * 5, 1, "no answer within 1 seconds, 5 times in a row", id="hanging"),
    pytest.param([refuse(403, "AccessDenied")], 60, "is denied (AccessDenied)", id="denied"),
    pytest.param([refuse(403, "ExpiredToken")], 60, "is denied (ExpiredToken)", id="expired"),
    pytest.param([refuse(403, "RequestTimeTooSkewed")], 60, "this machine's clock is wrong", id="clock"),
    pytest.param([refuse(404, "NoSuchBucket")], 60, "there is no bucket 'bucket' at http://127.0.0.1", id="no-bucket"),
]


@pytest.mark.parametrize(("faults", "patience", "says"), STAYS)
def test_what_stays_is_told_and_leaves_no_half(
    faults: list[Fault],
    patience: float,
    says: str,
    store: S3Store,
    patient_for: Patience,
    proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    """Five attempts and no more: the sixth would be answered."""
    store.write("k", CONTENT)
    folder = tmp_path / "folder"
    folder.mkdir()
    waiting = patient_for(patience)
    for call in (lambda: waiting.read("k"), lambda: waiting.download("k", folder / "out")):
        proxy.faults["GET"], proxy.faults["HEAD"] = list(faults), list(faults)
        with pytest.raises(UserError) as caught:
            call()
        proxy.faults.clear()
        assert says in str(caught.value)
        assert "Traceback" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_bucket_that_is_not_there(credentials: S3Server, tmp_path: Path) -> None:
    missing = open_store(credentials.storage(uri="s3://no-such-bucket/x"), tmp_path)
    with pytest.raises(UserError, match="there is no bucket 'no-such-bucket'") as caught:
        list(missing.keys(""))
    assert caught.value.remedy == "create it, or mend the uri"


def test_a_clock_that_is_wrong(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real server's refusal, of a request that says it is an hour from now."""
    later = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(hours=1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: later)
    with pytest.raises(UserError, match="this machine's clock is wrong") as caught:
        store.write("k", b"")
    assert "set the clock" in caught.value.remedy


@pytest.mark.parametrize("fault", [reset, reset_after, BROKEN])
def test_a_part_that_is_lost_is_sent_again(fault: Fault, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * PART // 256 + 100)
    (tmp_path / "in").write_bytes(content)
    proxy.faults["PUT"] = [fault] * 2
    store.upload(tmp_path / "in", "large")
    assert store.read("large") == content


def test_an_upload_that_is_given_up_leaves_nothing(
    store: S3Store, proxy: FaultProxy, credentials: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(bytes(2 * PART))
    proxy.faults["PUT"] = [reset] * 60
    with pytest.raises(UserError, match="cannot be reached"):
        store.upload(tmp_path / "in", "large")
    proxy.faults.clear()
    assert list(store.keys("")) == []
    left = credentials.client().list_multipart_uploads(Bucket="bucket").get("Uploads", [])
    assert [one["Key"] for one in left if one["Key"].endswith("/large")] == []


def test_a_wrong_byte_is_never_taken_for_the_artifact(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = publish(store, "dataset", {}, lambda folder: {"bytes": (folder / "a").write_bytes(CONTENT)})
    made.folder.rename(tmp_path / "elsewhere")  # the copy on this machine is gone
    manifest = store.read(f"{made.key}/manifest.json")
    monkeypatch.setattr(store, "read", lambda _: manifest)
    proxy.faults["GET"] = [corrupt]
    with pytest.raises(UserError, match="does not match the checksum in its manifest"):
        load(store, made.key)
    assert (load(store, made.key).folder / "a").read_bytes() == CONTENT


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow beyond ``room`` bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_leaves_no_artifact(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with pytest.raises(OSError) as caught, full_disk(4096):
        publish(store, "dataset", {}, lambda folder: {"bytes": (folder / "a").write_bytes(CONTENT)}, key="dataset/a")
    problem = told(caught.value)
    assert problem is not None
    assert problem.what.startswith("no space is left to write to: ")
    assert problem.remedy.startswith("make room; what is finished stays where it is")
    assert find(store, "dataset/a") is None
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_full_disk_leaves_no_half_of_a_download(store: S3Store, tmp_path: Path) -> None:
    store.write("k", CONTENT)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises((OSError, UserError)) as caught, full_disk(4096):
        store.download("k", folder / "out")
    assert told(caught.value) is not None or isinstance(caught.value, UserError)
    assert list(folder.iterdir()) == []


@pytest.mark.faults
def test_a_whole_run_through_a_bad_network(
    finished: Finished, proxy: FaultProxy, credentials: S3Server, tmp_path: Path
) -> None:
    """Every seventh request or so meets a fault; the run takes longer and makes the same."""
    settings = yaml.safe_load(finished.config.read_text())
    settings["storage"] = credentials.storage(f"bad/{tmp_path.name}", endpoint_url=proxy.endpoint).model_dump()
    config = finished.config.with_name("bad-network.yaml")
    config.write_text(yaml.safe_dump(settings))
    from tests.faults.proxy import pass_on

    usual: list[Fault] = [pass_on] * 6
    proxy.faults["GET"] = [*usual, BUSY, *usual, truncate, *usual, reset] * 200
    proxy.faults["PUT"] = [*usual, BROKEN, *usual, reset_after] * 200
    proxy.faults["HEAD"] = [*usual, BUSY] * 200
    temporary = {"TMPDIR": str(tmp_path)}  # copies that other runs left would spare requests
    done = run_once(config, tmp_path / "root", None, environment=credentials.environment | temporary)
    assert done.exit_code == 0, done.log
    assert digests(done.summary) == finished.digests
    assert len(proxy.seen) > 300
