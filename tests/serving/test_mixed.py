"""Mixed batches against one row under one adapter at a time."""

import numpy as np
import pytest

from components.config import LoraConfig
from components.language_model import attach_adapter, example_logits, load_adapters, load_base, save_adapter
from components.serving import mixed
from components.serving.mixed import Item, adapter_logits
from tests.conftest import nf4, perturb, plain, random_examples

ADAPTERS = ("one", "two", "three")  # not all of one rank
LORA = LoraConfig(rank=4, alpha=8)


def load(config, tmp_path):
    base = load_base(config)
    for seed, name in enumerate(ADAPTERS):
        model = attach_adapter(base, LORA.model_copy(update={"rank": 4 + seed % 2}), seed)
        perturb(model, seed)
        save_adapter(model, tmp_path / name, base)
        model.unload()
    return base, load_adapters(base, {name: tmp_path / name for name in ADAPTERS})


@pytest.mark.parametrize("kind", ["llama", "gpt2", "nf4"])
@pytest.mark.parametrize(("tokens", "enough"), [(1, 1024), (100, 1024), (10_000, 1024), (10_000, 40)])
def test_a_row_does_not_depend_on_its_batch(request, tmp_path, kind, tokens, enough):
    folder = request.getfixturevalue({"llama": "llama_folder", "gpt2": "gpt2_folder", "nf4": "wide_llama_folder"}[kind])
    base, model = load(nf4(folder) if kind == "nf4" else plain(folder), tmp_path)
    parts = [random_examples([5, 17, 9], classes=2, seed=1), random_examples([12, 3], classes=5, seed=2)]
    items = [Item(part, row, name) for name in ADAPTERS for part in parts for row in range(len(part))][::-1]
    found = adapter_logits(model, base, items, tokens, enough)
    seen = set()
    for item, logits in zip(items, found, strict=True):
        model.set_adapter(item.adapter)
        alone = example_logits(model, base, item.examples.take([item.row]))[0]
        assert logits.shape == (len(item.examples.label_tokens),)
        np.testing.assert_allclose(logits, alone, atol=2e-5)
        seen.add(tuple(np.round(alone, 3)))
    assert len(seen) == len(items), "adapters and rows differ, or the comparison says little"


def test_an_adapter_with_enough_rows_goes_alone():
    long, short = random_examples([30, 30], classes=2), random_examples([5, 9], classes=2)
    items = [Item(short, 0, "two"), Item(long, 0, "one"), Item(short, 1, "three"), Item(long, 1, "one")]
    batches = [[items[i].adapter for i in batch] for batch in mixed._batches(items, 10_000, 40)]
    assert batches[0] == ["one", "one"]
    assert [name for batch in batches[1:] for name in batch] == ["three", "two"], "the others share what is left"


def test_an_adapter_that_is_not_there(llama_folder, tmp_path):
    base, model = load(plain(llama_folder), tmp_path)
    with pytest.raises(ValueError, match="no such adapters: four"):
        adapter_logits(model, base, [Item(random_examples([4]), 0, "four")])
