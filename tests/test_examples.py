from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from components.examples import BATCH_TOKENS_WORTH, Examples, collate, full_batches, length_batches, tokenize
from components.prepared import PreparedDataset, Split
from components.prompts import label_tokens
from tests.conftest import random_examples
from tests.small_models import write_tokenizer

TEMPLATE = "{text}\nMood:"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def dataset(split: Split, words: tuple[str, ...] = ("bad", "good"), template: str = TEMPLATE) -> PreparedDataset:
    return PreparedDataset("d", template, words, words, "accuracy", not words, {"train": split}, {})


def test_tokenize_keeps_rows_labels_and_order(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["the film was good", "the book was bad", "music " * 60]
    split = Split(np.array([5, 9, 11]), {"text": texts}, np.array([1, 0, 1]), None)
    examples = tokenize(dataset(split), "train", tokenizer, 32)
    assert examples.row.tolist() == [5, 9, 11] and examples.label.tolist() == [1, 0, 1]
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in examples.ids[:2]] == [
        "the film was good\nMood:",
        "the book was bad\nMood:",
    ]
    assert examples.truncated == 1 and len(examples.ids[2]) <= 32
    assert examples.label_tokens == label_tokens(["bad", "good"], TEMPLATE, tokenizer)[0]
    assert examples.notes == [] and examples.response_start is None


def test_tokenize_passes_notes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    split = Split(np.array([5]), {"text": ["a"]}, np.array([0]), None)
    examples = tokenize(dataset(split, ("card arrival", "card payment")), "train", tokenizer, 32)
    assert len(examples.notes) == 1 and "card payment" in examples.notes[0]


def test_tokenize_completion(tokenizer: PreTrainedTokenizerFast) -> None:
    split = Split(np.array([5, 6]), {"text": ["What?", "Why?"]}, np.array([-1, -1]), ["Music.", "The film was good."])
    examples = tokenize(dataset(split, (), "{text}\nAnswer:"), "train", tokenizer, 64)
    assert examples.label.tolist() == [1, 1] and examples.label_tokens == []
    assert examples.response_start is not None
    answers = [tokenizer.decode(ids[s:]) for ids, s in zip(examples.ids, examples.response_start, strict=True)]
    assert answers == [" Music.", " The film was good."]


def test_take_takes_everything_along() -> None:
    examples = random_examples([4, 7, 5], response=2)
    taken = examples.take(np.array([2, 0]))
    assert taken.ids == [examples.ids[2], examples.ids[0]]
    assert taken.row.tolist() == examples.row[[2, 0]].tolist()
    assert taken.response_start == [examples.response_start[2], examples.response_start[0]]  # type: ignore[index]
    assert len(taken) == 2


def test_collate_pads_rows_of_several_datasets() -> None:
    two = Examples(np.array([1]), [[7, 8, 9]], np.array([1]), [3, 4])
    three = Examples(np.array([2]), [[6]], np.array([2]), [5, 6, 7])
    story = Examples(np.array([3]), [[5, 4, 3, 2]], np.array([1]), [], [2])
    batch = collate([(two, 0), (three, 0), (story, 0)])
    assert batch.input_ids.tolist() == [[7, 8, 9, 0], [6, 0, 0, 0], [5, 4, 3, 2]]
    assert batch.length.tolist() == [3, 1, 4]
    assert batch.label_tokens.tolist() == [[3, 4, -1], [5, 6, 7], [-1, -1, -1]]
    assert batch.label.tolist() == [1, 2, 1]
    assert batch.response_start.tolist() == [-1, -1, 2]


def test_collate_of_completions_alone_has_two_logits() -> None:
    batch = collate([(random_examples([4], response=1), 0)])
    assert batch.label_tokens.tolist() == [[-1, -1]]


def test_batch_moves_every_tensor() -> None:
    batch = collate([(random_examples([4]), 0)]).to(torch.device("meta"))
    assert {getattr(batch, name).device.type for name in batch.__dataclass_fields__} == {"meta"}


@pytest.mark.parametrize("budget", [1, 16, 40, 10_000])
def test_length_batches_cover_every_row_within_the_budget(budget: int) -> None:
    random = np.random.default_rng(0)
    ids = [[0] * length for length in random.integers(1, 30, 50)]
    batches = list(length_batches(ids, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    for batch in batches:
        longest = max(len(ids[i]) for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    lengths = [len(ids[i]) for batch in batches for i in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_no_rows_no_batches() -> None:
    assert list(length_batches([], 64)) == []


def test_tokenizer_folder_is_reusable(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Training the tokenizer twice gives the same one, so the fixtures' models and tests agree on token ids."""
    assert write_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()


def least_cost(lengths: list[int], budget: int) -> int:
    """The least cost over every way to cut rows, sorted from long to short, into batches within the budget."""
    lengths = sorted(lengths, reverse=True)
    best = []
    for mask in range(2 ** (len(lengths) - 1)):
        starts = [0, *(i + 1 for i in range(len(lengths) - 1) if mask >> i & 1)]
        ends = [*starts[1:], len(lengths)]
        sizes = [(end - start, lengths[start]) for start, end in zip(starts, ends, strict=True)]
        if all(rows == 1 or rows * longest <= budget for rows, longest in sizes):
            best.append(sum(rows * longest + BATCH_TOKENS_WORTH for rows, longest in sizes))
    return min(best)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", [100, 400, 10_000])
def test_length_batches_cost_least(seed: int, budget: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 120, 10).tolist()
    batches = list(length_batches([[0] * length for length in lengths], budget))
    cost = sum(len(batch) * max(lengths[i] for i in batch) + BATCH_TOKENS_WORTH for batch in batches)
    assert cost == least_cost(lengths, budget)
    assert len(batches) > 1


def test_runs_of_neighbouring_batches_are_cut_alike() -> None:
    """What lets extraction be cut into shards: a shard by itself has the batches that it had in the whole."""
    lengths = np.random.default_rng(0).integers(1, 120, 200)
    ids = [[0] * int(length) for length in lengths]
    batches = list(length_batches(ids, 600))
    part = np.concatenate(batches[3:7])
    alone = [part[batch] for batch in length_batches([ids[i] for i in part], 600)]
    assert [len(batch) for batch in alone] == [len(batch) for batch in batches[3:7]]


def test_full_batches_are_filled_to_the_budget() -> None:
    batches = list(full_batches([[0] * length for length in (5, 9, 1, 4)], 10))
    assert [batch.tolist() for batch in batches] == [[1], [0, 3], [2]]
