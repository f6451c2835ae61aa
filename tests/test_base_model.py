import shutil
from pathlib import Path

import pytest
import torch

from components.base_model import model_digest, model_folder, model_inputs
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
