from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from components.errors import UserError
from components.label_tokens import known_label_tokens
from components.prepared import PreparedDataset
from components.prompts import encode, label_tokens
from tests.conftest import plain
from tests.small_models import write_tokenizer

TEMPLATE = "Review: {text}\nSentiment:"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_short_prompts_are_rendered_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The film was good.", "", "a {brace} in the text"]
    encoded = encode(TEMPLATE, {"text": texts}, tokenizer, 100)
    assert encoded.truncated == 0
    assert encoded.response_start is None
    rendered = [f"Review: {text}\nSentiment:" for text in texts]
    assert encoded.ids == [[tokenizer.bos_token_id, *plain_ids(tokenizer, text)] for text in rendered]


@pytest.mark.parametrize(("begin", "end"), [(False, False), (True, True), (False, True)])
def test_opening_tokens_are_kept_and_end_of_text_is_not(tmp_path: Path, begin: bool, end: bool) -> None:
    tokenizer = write_tokenizer(tmp_path, begin=begin, end=end)
    ids = encode(TEMPLATE, {"text": ["good"]}, tokenizer, 100).ids[0]
    assert ids == [tokenizer.bos_token_id] * begin + plain_ids(tokenizer, "Review: good\nSentiment:")


def test_no_records_no_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(TEMPLATE, {"text": []}, tokenizer, 100)
    assert (encoded.ids, encoded.truncated) == ([], 0)


def test_truncation_cuts_the_text_only_and_is_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The weather was good. " * 40, "short", "people walk " * 50]
    encoded = encode(TEMPLATE, {"text": texts}, tokenizer, 40)
    assert encoded.truncated == 2
    for text, ids in zip(texts, encoded.ids, strict=True):
        shown = tokenizer.decode(ids, skip_special_tokens=True)
        assert len(ids) <= 40
        assert shown.startswith("Review: ") and shown.endswith("\nSentiment:")
        kept = shown.removeprefix("Review: ").removesuffix("\nSentiment:")
        assert text.startswith(kept)
    assert len(encoded.ids[0]) >= 38, "more was cut than had to be"


def test_truncation_cuts_the_longest_field(tokenizer: PreTrainedTokenizerFast) -> None:
    template = "{text}\nQuestion: {text_pair}\nAnswer:"
    fields = {"text": ["the village " * 60], "text_pair": ["Is this the same question?"]}
    encoded = encode(template, fields, tokenizer, 40)
    shown = tokenizer.decode(encoded.ids[0], skip_special_tokens=True)
    assert shown.endswith("\nQuestion: Is this the same question?\nAnswer:")
    assert len(encoded.ids[0]) <= 40 and shown.startswith("the village the")


def test_both_fields_are_cut_where_one_is_not_enough(tokenizer: PreTrainedTokenizerFast) -> None:
    fields = {"text": ["people " * 30], "text_pair": ["village " * 31]}
    encoded = encode("{text}|{text_pair}\nAnswer:", fields, tokenizer, 14)
    shown = tokenizer.decode(encoded.ids[0], skip_special_tokens=True)
    assert len(encoded.ids[0]) <= 14
    assert "|" in shown and shown.endswith("\nAnswer:")


def test_characters_of_several_tokens_are_cut_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each of these characters is three or four tokens that share one offset."""
    for symbol in ("🎈", "語"):
        encoded = encode(TEMPLATE, {"text": [symbol * 30]}, tokenizer, 50)
        shown = tokenizer.decode(encoded.ids[0], skip_special_tokens=True)
        kept = shown.removeprefix("Review: ").removesuffix("\nSentiment:")
        assert kept and kept == symbol * len(kept)
        assert 46 <= len(encoded.ids[0]) <= 50


def test_template_longer_than_allowed_is_a_user_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="does not fit into 5 tokens") as caught:
        encode(TEMPLATE, {"text": ["good"]}, tokenizer, 5)
    assert "model.max_length" in caught.value.remedy


def test_response_longer_than_allowed_is_a_user_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="does not fit") as caught:
        encode("{text}", {"text": ["good"]}, tokenizer, 30, ["a terrible question " * 40])
    assert "response" in caught.value.remedy


def test_response_follows_the_prompt_and_survives_truncation(tokenizer: PreTrainedTokenizerFast) -> None:
    texts, responses = ["What is the capital? " * 20, "What?"], ["The village.", "Music."]
    encoded = encode("{text}\nAnswer:", {"text": texts}, tokenizer, 30, responses)
    assert encoded.truncated == 1 and encoded.response_start is not None
    for text, response, start, ids in zip(texts, responses, encoded.response_start, encoded.ids, strict=True):
        assert len(ids) <= 30
        assert tokenizer.decode(ids[start:]) == f" {response}"
        prompt = tokenizer.decode(ids[:start], skip_special_tokens=True)
        assert prompt.endswith("\nAnswer:") and text.startswith(prompt.removesuffix("\nAnswer:"))


def test_template_that_ends_in_white_space_gets_no_second_space(tokenizer: PreTrainedTokenizerFast) -> None:
    spaced, _ = label_tokens(["good", "bad"], "{text}\nMood:", tokenizer)
    broken, _ = label_tokens(["good", "bad"], "{text}\nMood:\n", tokenizer)
    assert [tokenizer.decode([token])[:1] for token in spaced] == [" ", " "]
    assert [tokenizer.decode([token])[:1] for token in broken] == ["g", "b"]
    encoded = encode("{text}\n", {"text": ["What?"]}, tokenizer, 30, ["Music."])
    assert tokenizer.decode(encoded.ids[0], skip_special_tokens=True) == "What?\nMusic."


def test_different_words_keep_their_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    words = ["positive", "bad", "terrible"]
    tokens, notes = label_tokens(words, TEMPLATE, tokenizer)
    assert notes == []
    assert tokens == [plain_ids(tokenizer, f" {word}")[0] for word in words]


def test_colliding_words_get_distinct_tokens_and_a_note(tokenizer: PreTrainedTokenizerFast) -> None:
    words = ["card arrival", "card payment", "good"]
    first = [plain_ids(tokenizer, f" {word}")[0] for word in words]
    assert first[0] == first[1] != first[2]
    tokens, notes = label_tokens(words, TEMPLATE, tokenizer)
    assert len(set(tokens)) == 3
    assert tokens[2] == first[2], "a word with a first token of its own keeps it"
    assert tokens[0] == first[0] and tokens[1] in plain_ids(tokenizer, " card payment")
    assert notes == [f"label 'card payment' answers with the token {tokenizer.decode([tokens[1]])!r}"]


def test_words_that_differ_in_nothing_still_get_distinct_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens, notes = label_tokens(["good", "good"], TEMPLATE, tokenizer)
    assert len(set(tokens)) == 2 and len(notes) == 1


def test_77_labels_with_three_first_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    words = [f"{('card', 'transfer', 'terrible')[i % 3]} problem {i // 3}" for i in range(77)]
    tokens, notes = label_tokens(words, TEMPLATE, tokenizer)
    assert len(set(tokens)) == 77
    assert not set(tokens) & set(tokenizer.all_special_ids)
    assert len(notes) == 74
    assert (tokens, notes) == label_tokens(words, TEMPLATE, tokenizer)


def test_more_labels_than_tokens_is_a_user_error(tokenizer: PreTrainedTokenizerFast) -> None:
    words = [f"good {i}" for i in range(len(tokenizer))]
    with pytest.raises(UserError, match="too few tokens") as caught:
        label_tokens(words, TEMPLATE, tokenizer)
    assert "fewer labels" in caught.value.remedy


def test_word_without_a_token_is_a_user_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="has no token") as caught:
        label_tokens(["good", ""], "{text}\n", tokenizer)
    assert "labels" in caught.value.remedy


def test_label_tokens_are_known_without_the_weights(llama_folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = PreparedDataset("mood", TEMPLATE, ("0", "1"), ("bad", "good"), "accuracy", False, {}, {})
    expected, _ = label_tokens(["bad", "good"], TEMPLATE, tokenizer)
    assert known_label_tokens(plain(llama_folder), dataset) == expected
    completion = PreparedDataset("story", "{prompt}", (), (), "accuracy", True, {}, {})
    assert known_label_tokens(plain(llama_folder), completion) == []
