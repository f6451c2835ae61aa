import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from components.base_model import model_digest, model_folder, model_identity, model_inputs
from components.config import ModelConfig
from components.errors import UserError
from tests.conftest import plain


@pytest.fixture
def copy(llama_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_folder, tmp_path / "copy")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_local_folder_is_taken_as_it_is(llama_folder: Path) -> None:
    assert model_folder(plain(llama_folder)) == llama_folder


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["nobody/such-model-as-this", "/no/such/folder", "not a name!", "misspelt"])
def test_missing_model_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match="neither a local folder nor a hub model") as caught:
        model_folder(ModelConfig(id=name))
    assert repr(name) in caught.value.what
    assert "HF_TOKEN" in caught.value.remedy and "local folder" in caught.value.remedy


def test_folder_without_configuration_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json") as caught:
        model_folder(plain(tmp_path))
    assert "transformers layout" in caught.value.remedy


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \*\.safetensors") as caught:
        model_folder(plain(copy))
    assert "convert the weights to safetensors" in caught.value.remedy


def test_digest_is_of_the_content_and_not_of_the_place(llama_folder: Path, copy: Path) -> None:
    before = model_digest(plain(llama_folder))
    (copy / "README.md").write_text("not part of the model")
    assert model_digest(plain(copy)) == before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_one_changed_byte_changes_the_digest(llama_folder: Path, copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    assert model_digest(plain(copy)) != model_digest(plain(llama_folder))


def test_key_inputs_hold_what_changes_outputs_and_no_path(llama_folder: Path, copy: Path) -> None:
    inputs = model_inputs(plain(llama_folder))
    assert inputs == model_inputs(plain(copy))
    assert inputs == {
        "digest": model_digest(plain(llama_folder)),
        "quantization": "none",
        "dtype": "float32",
        "max_length": 512,
    }
    assert str(llama_folder) not in str(inputs)


COMMIT, NEWER = "1" * 40, "2" * 40
ASK = """
from components.base_model import model_identity
from components.config import ModelConfig
print(model_identity(ModelConfig(id="some/model")))
"""


class Hub(ThreadingHTTPServer):
    """The part of a hub that answers for one small file; ``asked`` are the paths that it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.commit, self.asked = COMMIT, set[str]()


class _Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        assert isinstance(self.server, Hub)
        self.server.asked.add(self.path)
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("ETag", '"0123"')
        self.send_header("Content-Length", "2")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_branch_is_the_commit_that_it_is_at_and_no_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    def identity(*, offline: bool = False) -> str:
        environment = {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": str(int(offline)),
        }
        command = [sys.executable, "-c", ASK]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert identity() == f"some/model@{COMMIT}"
    hub.commit = NEWER
    assert identity() == f"some/model@{NEWER}"
    hub.commit = COMMIT
    assert identity(offline=True) == f"some/model@{NEWER}", "without a network, what was seen last"
    asked = {path for path in hub.asked if "some/model" in path}  # the client has other questions too
    assert {path.rpartition("/")[2] for path in asked} == {"config.json"}


@pytest.mark.usefixtures("offline")
def test_a_pinned_model_is_known_without_asking_anybody(llama_folder: Path) -> None:
    assert model_identity(ModelConfig(id="some/model", revision=COMMIT)) == f"some/model@{COMMIT}"
    assert model_identity(plain(llama_folder)) == model_digest(plain(llama_folder))
    with pytest.raises(UserError, match="neither a local folder nor a hub model"):
        model_identity(ModelConfig(id="some/model", revision="main"))
