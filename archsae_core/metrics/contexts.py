"""The text around one activation, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from archsae_core.data.activations import ActivationSet
from archsae_core.data.tokens import TokenSet
from archsae_core.data.transformers_types import PreTrainedTokenizerBase

PART = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers decode a part of a character to."""
RESTART = 8
"""Tokens decoded together at most, but for a character that takes more."""


def context(
    activations: ActivationSet,
    tokens: TokenSet,
    tokenizer: PreTrainedTokenizerBase,
    row: int,
    code: Mapping[tuple[int, int], float],
    *,
    before: int = 12,
    after: int = 6,
) -> dict[str, Any]:
    """The tokens around one activation: `tokens` as strings, `values` of `code` at each, `marked` = index of the row's.

    `code` maps (window, position) to the value shown; 0 where it has none. With `row`, `document` and `position`.
    """
    window, position = int(activations.window[row]), int(activations.position[row])
    start = max(0, position - before)
    ids = tokens.ids[window][start : position + after + 1]
    return {
        "tokens": token_strings(tokenizer, ids.tolist()),
        "values": [code.get((window, start + i), 0.0) for i in range(len(ids))],
        "marked": position - start,
        "row": row,
        "document": int(activations.document[row]),
        "position": position,
    }


class WindowTexts:
    """The windows of a TokenSet as text, each decoded on first use and once."""

    def __init__(self, tokens: TokenSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokens, self._tokenizer = tokens, tokenizer
        self._known: dict[int, list[str]] = {}

    def __getitem__(self, window: int) -> list[str]:
        """`token_strings` of a window."""
        if window not in self._known:
            self._known[window] = token_strings(self._tokenizer, self._tokens.ids[window].tolist())
        return self._known[window]


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Text that each token adds to those before it, so that the strings join to the decoded text.

    A token that ends inside a character adds nothing; the character appears with the token that completes it.
    """
    strings: list[str] = []
    start, done = 0, ""
    for end in range(1, len(ids) + 1):
        text = _decode(tokenizer, ids[start:end])
        whole = text.rstrip(PART)
        strings.append(whole[len(done) :])
        done = whole if len(whole) > len(done) else done
        if end - start >= RESTART and text == whole:
            # Decoding goes on from this token, or time would grow with the square of the length.
            alone = _decode(tokenizer, ids[end - 1 : end])
            if alone and PART not in alone:
                start, done = end - 1, alone
    return strings


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
