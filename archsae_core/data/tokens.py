"""Documents as windows of token ids, within a budget of tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from archsae_core.config import ConfigError, CorpusConfig
from archsae_core.data.copies import PASSAGE_WORDS, CopiesReport, find_copies
from archsae_core.data.corpus import Corpus, copies_report, shuffled, split_documents
from archsae_core.data.text_files import TextError
from archsae_core.data.transformers_types import PreTrainedTokenizerBase

BATCH_DOCUMENTS = 256
"""Documents a call of the tokenizer."""


class TokenSet(NamedTuple):
    """Windows of at most `context` consecutive tokens of one document, in the order the documents were given."""

    ids: list[Int32[np.ndarray, " _"]]
    """Token ids of each window, 2 ≤ length ≤ context."""
    document: Int32[np.ndarray, " n_windows"]
    """Index into `Corpus.texts` of each window's document."""

    @property
    def n_tokens(self) -> int:
        """Tokens in all windows."""
        return sum(len(window) for window in self.ids)


class TokenSplit(NamedTuple):
    """The three disjoint parts of the documents within the budget: no document has a copy in another part."""

    train: TokenSet
    validation: TokenSet
    heldout: TokenSet
    copies: CopiesReport
    """Copies among the documents of all parts."""


def window_start(tokenizer: PreTrainedTokenizerBase, bos: str) -> tuple[int, ...]:
    """Ids that every window begins with, for a value of `CorpusConfig.bos`.

    `auto`: whatever the tokenizer itself puts before a text, which for most is nothing, for Gemma and OPT one token.
    Every window begins so, not a document's first alone: the model reads each as a sequence of its own. Raises
    ConfigError naming `bos` for `true` where the tokenizer has no such token.
    """
    if bos == "true" and tokenizer.bos_token_id is None:
        raise ConfigError("bos = 'true': the tokenizer has no token for the beginning: set it to auto or false")
    if bos != "auto":
        return (tokenizer.bos_token_id,) if bos == "true" else ()
    plain, whole = (tokenizer("text", add_special_tokens=special)["input_ids"] for special in (False, True))
    places = range(len(whole) - len(plain) + 1)
    return tuple(whole[: next((i for i in places if whole[i : i + len(plain)] == plain), 0)])


def tokenize(
    corpus: Corpus,
    documents: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    start: Sequence[int] = (),
) -> TokenSet:
    """Cut each of `documents` into windows of `context` tokens, `start` in front of each; the last may be shorter.

    No other special tokens are added, and text that looks like one stays text. Windows of a single token are dropped,
    since position 0 of a window is never studied.
    """
    ids: list[np.ndarray] = []
    owners: list[int] = []
    texts = [corpus.texts[document] for document in documents]
    for document, tokens in zip(documents, _token_ids(texts, tokenizer), strict=True):
        windows = _windows(tokens, context, start)
        ids.extend(windows)
        owners.extend([document] * len(windows))
    return TokenSet(ids, np.array(owners, dtype=np.int32))


def take_budget(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig, context: int
) -> tuple[int, ...]:
    """Documents in shuffled order until their windows hold `config.tokens` tokens; all of them where that is None.

    The last document taken crosses the budget, so the total is the budget or a little more. A larger budget keeps every
    document of a smaller one. What windows begin with counts. Raises TextError naming `tokens` where fewer than 3
    documents fit.
    """
    order = shuffled(len(corpus.texts))
    if config.tokens is None:
        return order
    taken, total, start = 0, 0, window_start(tokenizer, config.bos)
    while total < config.tokens and taken < len(order):
        batch = [corpus.texts[document] for document in order[taken : taken + BATCH_DOCUMENTS]]
        for tokens in _token_ids(batch, tokenizer):
            if total >= config.tokens:
                break
            total += sum(len(window) for window in _windows(tokens, context, start))
            taken += 1
    if taken < 3:
        raise TextError(f"tokens = {config.tokens}: the budget ends after {taken} documents, 3 are needed: raise it")
    return order[:taken]


def tokenize_split(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig, context: int
) -> TokenSplit:
    """Windows of `context` tokens of the training, validation and held-out documents within the budget `config.tokens`.

    The budget is taken before the documents are split, so that all three parts shrink alike. Exact copies stay in one
    part, and where `config.near_copies` near copies as well. Raises TextError where a part holds no window of 2 tokens.
    """
    documents = take_budget(corpus, tokenizer, config, context)
    texts, start = [corpus.texts[i] for i in documents], window_start(tokenizer, config.bos)
    found = find_copies(texts, PASSAGE_WORDS if config.near_copies else None)
    parts = split_documents(found.groups.tolist(), config)._asdict()
    sets = {
        name: tokenize(corpus, [documents[i] for i in part], tokenizer, context, start) for name, part in parts.items()
    }
    for name, tokens in sets.items():
        if not tokens.ids:
            raise TextError(f"text = {config.text!r}: no {name} document has 2 tokens: use more or longer documents")
    return TokenSplit(**sets, copies=copies_report(found, documents, config))


def last_windows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, context: int, start: Sequence[int] = ()
) -> list[Int32[np.ndarray, " _"]]:
    """One window a text, which ends where the text ends: `start`, then the last tokens that `context` has room for."""
    room = _room(context, start)
    return [np.array([*start, *tokens[-room:]], dtype=np.int32) for tokens in _token_ids(texts, tokenizer)]


def _token_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids: list[list[int]] = []
    for first in range(0, len(texts), BATCH_DOCUMENTS):
        ids += tokenizer(
            list(texts[first : first + BATCH_DOCUMENTS]),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
    return ids


def _windows(tokens: Sequence[int], context: int, start: Sequence[int]) -> list[np.ndarray]:
    step = _room(context, start)
    cuts = [np.array([*start, *tokens[i : i + step]], dtype=np.int32) for i in range(0, len(tokens), step)]
    return [window for window in cuts if len(window) >= 2]


def _room(context: int, start: Sequence[int]) -> int:
    """Tokens of the text itself in a window."""
    if len(start) >= context:
        raise ConfigError(f"context = {context}: the tokenizer begins every window with {len(start)} tokens: raise it")
    return context - len(start)
