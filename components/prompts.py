"""From a record's fields to token ids, and from label words to the tokens that stand for them.

Truncation cuts the longest field's text and never the template around it or the answer, and it is counted. A label is
read off one token, so every label needs a token of its own: the first token of its word where those differ, else
another one, and the change is said aloud.
"""

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Encoded:
    """Token ids of N prompts.

    Attributes:
        ids: N lists of token ids; for a completion dataset the prompt's ids followed by the response's.
        response_start: for a completion dataset, where the response begins in each; else None.
        truncated: how many prompts had to be cut.
    """

    ids: list[list[int]]
    response_start: list[int] | None
    truncated: int


def template_fields(template: str) -> list[str]:
    """The fields that a template names, each once, in its order."""
    return list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(template) if name))


def encode(
    template: str,
    fields: dict[str, list[str]],
    tokenizer: "PreTrainedTokenizerFast",
    max_length: int,
    responses: Sequence[str] | None = None,
) -> Encoded:
    """Render and tokenize N records.

    Args:
        template: the prompt with ``{field}`` in braces.
        fields: field name -> N texts.
        max_length: tokens a row, response included.
        responses: N responses of a completion dataset, placed behind the prompt.

    Raises:
        UserError: the template or the response alone is longer than ``max_length``.
    """
    count = len(next(iter(fields.values())))
    answers = [_continuation(template, text, tokenizer) for text in responses] if responses else [[]] * count
    rows = [{name: texts[i] for name, texts in fields.items()} for i in range(count)]
    tokenized = _with_special(tokenizer, [template.format(**row) for row in rows]) if count else []
    truncated = 0
    for i, (ids, answer) in enumerate(zip(tokenized, answers, strict=True)):
        room = max_length - len(answer)
        if len(ids) > room:
            tokenized[i] = _cut(template, rows[i], tokenizer, room)
            truncated += 1
    starts = [len(ids) for ids in tokenized] if responses else None
    return Encoded([ids + answer for ids, answer in zip(tokenized, answers, strict=True)], starts, truncated)


def label_tokens(
    words: Sequence[str], template: str, tokenizer: "PreTrainedTokenizerFast"
) -> tuple[list[int], list[str]]:
    """One distinct token for each label word, as it would follow the template.

    Returns:
        The token ids, in the order of ``words``, and a note for each label that got another token than its word's
        first. Words with a first token of their own keep it; the others try the rest of their own tokens, then
        single letters and digits.

    Raises:
        UserError: a word has no token, or the tokenizer has too few tokens to tell the labels apart.
    """
    options = [_continuation(template, word, tokenizer) for word in words]
    for word, ids in zip(words, options, strict=True):
        if not ids:
            raise UserError(f"the label word {word!r} has no token", remedy="give it another word under 'labels'")
    shared = Counter(ids[0] for ids in options)
    chosen: list[int | None] = [ids[0] if shared[ids[0]] == 1 else None for ids in options]
    taken = {token for token in chosen if token is not None}
    letters = string.ascii_letters + string.digits
    spare = [token for letter in letters for token in _continuation(template, letter, tokenizer)]
    # Every token of the vocabulary is the last resort: 77 labels outnumber the letters.
    special = set(tokenizer.all_special_ids)
    spare += [token for token in range(len(tokenizer)) if token not in special]
    notes = []
    for i, token in enumerate(chosen):
        if token is not None:
            continue
        free = next((option for option in [*options[i], *spare] if option not in taken), None)
        if free is None:
            raise UserError(f"the tokenizer has too few tokens for {len(words)} labels", remedy="use fewer labels")
        taken.add(free)
        chosen[i] = free
        if free != options[i][0]:
            notes.append(f"label {words[i]!r} answers with the token {tokenizer.decode([free])!r}")
    return [token for token in chosen if token is not None], notes


def _glue(template: str) -> str:
    """What stands between prompt and answer: a space, unless the template ends in white space already."""
    return "" if template[-1:].isspace() else " "


def _continuation(template: str, text: str, tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Token ids of ``text`` as it follows the template: tokenizers may treat the start of a text unlike its middle."""
    tail = template.rpartition("}")[2] or ":"
    before, whole = _plain(tokenizer, tail), _plain(tokenizer, tail + _glue(template) + text)
    return whole[len(before) :] if whole[: len(before)] == before else _plain(tokenizer, _glue(template) + text)


def _plain(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _with_special(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    """Token ids with the tokenizer's own opening tokens, but no end-of-text behind the prompt: the answer follows."""
    ids = tokenizer(texts, add_special_tokens=True)["input_ids"]
    end = tokenizer.eos_token_id
    return [row[:-1] if len(row) > 1 and row[-1] == end else row for row in ids]


def _cut(template: str, row: dict[str, str], tokenizer: "PreTrainedTokenizerFast", room: int) -> list[int]:
    """Shorten the longest field, at token boundaries, until the rendered prompt fits into ``room`` tokens."""
    row = dict(row)
    while True:
        ids = _with_special(tokenizer, [template.format(**row)])[0]
        excess = len(ids) - room
        if excess <= 0:
            return ids
        longest = max(row, key=lambda name: len(row[name]))
        offsets = tokenizer(row[longest], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        keep = len(offsets) - excess
        if not offsets or (keep <= 0 and len(row) == 1):
            raise UserError(
                f"the prompt does not fit into {room} tokens even without its text",
                remedy="raise model.max_length, or shorten the template or the response",
            )
        # Where the first dropped token starts: a character of several tokens goes as a whole, so every round cuts.
        row[longest] = row[longest][: offsets[keep][0]] if keep > 0 else ""
