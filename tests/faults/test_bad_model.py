"""Base models that cannot work: ``check`` says what shows without the weights, loading them says the rest."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, normalizers

from tests.faults.harness import Fault, Sound, copy_of, parametrize, told

WEIGHTS = "model.safetensors"
Do = Callable[[Sound], object]


def settings(**model: object) -> Do:
    return lambda project: project.settings({"model": model})


def removed(*names: str) -> Do:
    return lambda project: [(project.model / name).unlink() for name in names]


def replaced(name: str, content: bytes) -> Do:
    return lambda project: (project.model / name).write_bytes(content)


def described(**values: object) -> Do:
    """The model's config.json with other values."""

    def do(project: Sound) -> None:
        path = project.model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return do


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Do:
    """The model's weights after ``change``, which gets them by name."""

    def do(project: Sound) -> None:
        tensors = load_file(project.model / WEIGHTS)
        change(tensors)
        save_file(tensors, project.model / WEIGHTS, metadata={"format": "pt"})

    return do


def adapter_in_its_place(project: Sound) -> None:
    """A PEFT folder where a base model should be."""
    removed("config.json", WEIGHTS)(project)
    (project.model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"a": torch.zeros(1)}, project.model / "adapter_model.safetensors")


def swallowing_tokenizer(project: Sound) -> None:
    """A tokenizer that leaves nothing of punctuation, and a label that is nothing else."""
    path = str(project.model / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.normalizer = normalizers.Replace(Regex(r"[^\w\s:{}]"), "")
    tokenizer.save(path)
    project.settings({}, labels={"bad": "!!", "good": "good"}, template="{text}\n")


def poison(name: str, value: float) -> Do:
    return weights(lambda tensors: tensors[name].view(-1)[:1].fill_(value))


def larger_tokenizer(project: Sound) -> None:
    """Words added to the tokenizer after the model was made."""
    path = str(project.model / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_tokens(["soup", "film"])
    tokenizer.save(path)


NORM, GATE = "model.norm.weight", "model.layers.1.mlp.gate_proj.weight"
FILES = [
    Fault("missing", settings(id="/no/where"), ("there is no folder /no/where",)),
    Fault("path-that-climbs", settings(id="../../model"), ("there is no folder ../../model",)),
    Fault("no-config", removed("config.json"), ("has no config.json; give a folder in transformers layout",)),
    Fault("no-weights", removed(WEIGHTS), ("has no *.safetensors file; pickled weights are not loaded",)),
    Fault(
        "pickled-weights",
        lambda project: (removed(WEIGHTS)(project), torch.save({}, project.model / "pytorch_model.bin")),
        ("pickled weights are not loaded, convert them",),
    ),
    Fault(
        "no-tokenizer", removed("tokenizer.json"), ("has no tokenizer; copy tokenizer.json and tokenizer_config.json",)
    ),
    Fault("broken-config", replaced("config.json", b"{"), ("has a config.json or a weight index that cannot be read",)),
    Fault(
        "config-that-is-a-list",
        replaced("config.json", b"[]"),
        ("has a config.json or a weight index that cannot be read",),
    ),
    Fault("broken-tokenizer", replaced("tokenizer.json", b"{}"), ("the tokenizer in", "cannot be loaded")),
    Fault(
        "a-shard-is-missing",
        replaced("model.safetensors.index.json", b'{"weight_map": {"a": "two.safetensors"}}'),
        ("lacks two.safetensors, which its weight index names",),
    ),
    Fault(
        "no-language-model",
        described(architectures=["BertForMaskedLM"]),
        ("holds a BertForMaskedLM, not a causal language model",),
    ),
    Fault(
        "encoder-and-decoder",
        described(architectures=["T5ForConditionalGeneration"]),
        ("holds a T5ForConditionalGeneration, not a causal",),
    ),
    Fault("shorter-than-asked", settings(max_length=1024), ("takes 256 tokens at most, but model.max_length is 1024",)),
    Fault("adapter-for-a-base", adapter_in_its_place, ("has no config.json",)),
    Fault(
        "word-without-a-token",
        swallowing_tokenizer,
        ("the label word '!!' has no token", "give it another word under 'labels'"),
    ),
    Fault(
        "tokenizer-larger-than-the-model",
        larger_tokenizer,
        ("the tokenizer has 259 tokens, but the model embeds only 257", "they belong to different models"),
    ),
]
LOADED = [
    Fault(
        "cut-off",
        lambda project: replaced(WEIGHTS, (project.model / WEIGHTS).read_bytes()[:-1000])(project),
        ("cannot be loaded as a causal language model",),
    ),
    Fault(
        "a-pickle-called-safetensors",
        replaced(WEIGHTS, pickle.dumps({"a": 1})),
        ("cannot be loaded as a causal language model",),
    ),
    Fault(
        "weights-of-another-size",
        described(intermediate_size=48),
        ("holds no whole model", "down_proj.weight of [32, 64] instead of [32, 48]"),
    ),
    Fault("a-layer-is-missing", weights(lambda tensors: tensors.pop(GATE)), (f"lacks {GATE}", "made up")),
    Fault(
        "not-a-number-in-the-weights", poison(NORM, float("nan")), ("numbers that are not finite", "model.norm.weight")
    ),
    Fault("infinite-weights", poison(GATE, float("inf")), ("numbers that are not finite", GATE)),
    Fault(
        "unknown-kind",
        described(model_type="nothing_known"),
        ("cannot be loaded as a causal language model", "trust_remote_code"),
    ),
    Fault(
        "code-of-its-own",
        described(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}),
        ("cannot be loaded as a causal language model", "trust_remote_code"),
    ),
    Fault(
        "targets-nothing",
        lambda project: project.settings({"lora": {"targets": ["q_prj"]}}),
        ("lora.targets: ", "q_prj", "name linear modules of the model, or all-linear"),
    ),
    Fault(
        "four-bits-of-odd-layers",
        settings(quantization="nf4"),
        ("nf4 on a CPU needs layers whose inputs are multiples of 64", "model.quantization: none"),
    ),
]
FAULTS, WORDS = FILES + LOADED, ("check", "--gradients")


@parametrize(FILES)
def test_a_folder_that_holds_no_usable_model_is_told_without_its_weights(
    fault: Fault, sound: Sound, tmp_path: Path
) -> None:
    project = copy_of(sound, tmp_path / "project")
    fault.do(project)
    message = told(project, "check")
    for words in fault.says:
        assert words in message


@parametrize(LOADED)
def test_weights_that_cannot_work_are_told_when_they_are_loaded(fault: Fault, sound: Sound, tmp_path: Path) -> None:
    project = copy_of(sound, tmp_path / "project")
    fault.do(project)
    message = told(project, "check", "--gradients")
    for words in fault.says:
        assert words in message


def without_padding(project: Sound) -> None:
    """No token for padding: batches are padded with anything, for nothing looks at it."""
    path = project.model / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    path.write_text(json.dumps(settings))


def spare_rows(tensors: dict[str, torch.Tensor]) -> None:
    """More embeddings than the tokenizer has tokens, as models padded to a round number have."""
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.zeros(63, tensors[name].shape[1])])


@pytest.mark.parametrize(
    "do",
    [
        pytest.param(lambda project: None, id="sound"),
        pytest.param(without_padding, id="no-pad-token"),  # padding is never looked at
        pytest.param(
            lambda p: (described(vocab_size=320)(p), weights(spare_rows)(p)), id="more-embeddings-than-tokens"
        ),
    ],
)
def test_what_only_looks_wrong_works(do: Do, sound: Sound, tmp_path: Path) -> None:
    project = copy_of(sound, tmp_path / "project")
    do(project)
    code, shown, _ = project.command("check", "--gradients")
    assert code == 0
    assert "They agree" in shown
