"""The policy that docs/storage.md gives: enough for everything the store does, and nothing in it without need.

Checked are its actions, as moto does; links are not among what is tried, because moto cannot authorise them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

from components.config import StorageConfig
from components.errors import UserError
from components.s3_store import S3Store
from tests.faulty_s3 import Faulty, pass_on, refuse, serve

PAGE = Path(__file__).parents[1] / "docs" / "storage.md"
PART = 8 * 2**20
ACTIONS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


def policy(without: str = "") -> dict[str, Any]:
    found = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    for statement in document["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action != without] or ["s3:Nothing"]
    return document


def test_the_page_names_these_actions() -> None:
    assert [action for statement in policy()["Statement"] for action in statement["Action"]] == list(ACTIONS)


@pytest.fixture
def served(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Faulty]]:
    """An S3 server with the page's bucket, at which faults can be put in."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="ml-artifacts")
    app = Faulty()
    with serve(app) as address:
        yield address, app


def restricted(endpoint: str, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is a user with that policy, and the server checks it."""
    iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1")
    iam.create_user(UserName="steps")
    iam.put_user_policy(UserName="steps", PolicyName="store", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="steps")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)


def use(store: S3Store, folder: Path, app: Faulty) -> None:
    """Everything a store is for, an upload that fails half-way included."""
    (folder / "in").write_bytes(bytes(PART + 1))
    store.write("a", b"data")
    store.create("b", b"data")
    store.upload(folder / "in", "large")
    assert store.exists("a")
    assert store.read("a") == b"data"
    store.download("large", folder / "out")
    assert list(store.keys("")) == ["a", "b", "large"]
    store.delete("a")
    app.faults["PUT"] = [pass_on, *[refuse("400 Bad Request", "InvalidPart")] * 5]
    with pytest.raises(UserError, match="InvalidPart"):
        store.upload(folder / "in", "failed")


def left_open(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> bool:
    """Whether parts of a failed upload lie about."""
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    return "Uploads" in client.list_multipart_uploads(Bucket="ml-artifacts")


def test_it_is_enough(
    served: tuple[str, Faulty], endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restricted(endpoint, policy(), monkeypatch)
    use(S3Store("ml-artifacts", "loraloom", StorageConfig(endpoint_url=served[0])), tmp_path, served[1])
    assert not left_open(monkeypatch, endpoint)


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_in_it_can_be_spared(
    served: tuple[str, Faulty], endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    restricted(endpoint, policy(without=action), monkeypatch)
    store = S3Store("ml-artifacts", "loraloom", StorageConfig(endpoint_url=served[0]))
    if action == "s3:AbortMultipartUpload":  # the client only tries to
        use(store, tmp_path, served[1])
        assert left_open(monkeypatch, endpoint)
    else:
        with pytest.raises(UserError, match="is denied"):
            use(store, tmp_path, served[1])
