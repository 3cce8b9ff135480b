"""The text around one activation, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from archsae_core.data.activations import ActivationSet
from archsae_core.data.tokens import TokenSet


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


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Text that each token adds to those before it, so that the strings join to the decoded text.

    A token that ends inside a character adds nothing; the character appears with the token that completes it.
    """
    strings, done = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
        strings.append(whole[len(done) :])
        done = whole if len(whole) > len(done) else done
    return strings
