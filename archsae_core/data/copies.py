"""Exact and near copies among documents, so that no copy of a training document is held out.

Two documents are exact copies where their words are the same: case, white space, punctuation, invisible characters and
HTML entities do not count. They are near copies where they share a passage of `PASSAGE_WORDS` consecutive words,
wherever it stands: a copy with edits here and there keeps such a passage, and so do a common opening and a passage that
is asked about twice.
Training data of language models are cleaned by the same criterion (Brown et al. 2020, arXiv 2005.14165: 13 words; Lee
et al. 2022, arXiv 2107.06499: 50 tokens). All passages are compared, by hashes of 64 bits: none is missed by sampling,
as with MinHash, and the cost is one sort of all words.
"""

import html
import html.entities
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PASSAGE_WORDS = 16
"""Documents that share this many consecutive words are near copies; `benchmarks/copies.py` measures the choice."""
COMMON_DOCUMENTS = 20
"""A passage is boilerplate (a footer, a licence, a template) where more documents hold it than this number and …"""
COMMON_SHARE = 0.01
"""… than this share of all documents. It makes copies only of documents of which more than half is boilerplate."""
EXAMPLE_WORDS = 8
"""Words that an example quotes."""
PART = 2**22
"""Passages sorted at a time: bounds the memory."""

# Thai to Tibetan, Burmese, Khmer, kana and Han have no spaces: there, two characters count as a word
_UNSPACED = r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_ENTITY = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
# vowel signs and accents are of the word that they stand in; Python counts them as punctuation
_MARKS = (
    r"\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    r"\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u096f\u0971-\u0df3"
)
# soft hyphens, zero-width spaces and joiners, marks of direction and of byte order: not seen, and not part of a word
_INVISIBLE = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")


class Example(NamedTuple):
    """Two documents that are copies of each other."""

    first: int
    """Index of the earlier document."""
    second: int
    """Index of the later document."""
    words: str
    """First normalised words of what both hold."""


class Copies(NamedTuple):
    """Which documents are copies of each other."""

    exact: Int[np.ndarray, " n_documents"]
    """First document with the same words: its own index for a document that no earlier one equals."""
    groups: Int[np.ndarray, " n_documents"]
    """First document of the group. Copies of copies are in one group."""
    boilerplate: Bool[np.ndarray, " n_documents"]
    """Holds a passage that is too common to make copies."""
    examples: tuple[Example, ...]
    """The first few pairs, exact copies before near copies."""


class CopiesReport(NamedTuple):
    """How many documents are copies, and what a split that ignores it would have leaked."""

    documents: int
    """Documents within the budget of tokens."""
    exact: int
    """Documents whose words are those of an earlier one."""
    near: int
    """Further documents that share a passage with another one and are not the first of their group."""
    largest: int
    """Documents of the largest group."""
    boilerplate: int
    """Documents with a passage that is too common to make copies."""
    leaked_validation: int
    """Validation documents with a copy in training, had single documents been split instead of groups."""
    leaked_heldout: int
    """Held-out documents with a copy in training, had single documents been split instead of groups."""
    examples: tuple[Example, ...]
    """The first few pairs."""

    @property
    def groups(self) -> int:
        """Documents of which none is a copy of another: what is left without all copies."""
        return self.documents - self.exact - self.near

    def warning(self) -> str | None:
        """One sentence for people, with the first pairs; None where there is no copy. Documents are counted from 1."""
        if not self.exact + self.near:
            return None
        pairs = "; ".join(f"{one + 1} and {other + 1} ({words} …)" for one, other, words in self.examples)
        return (
            f"{self.exact:,} of {self.documents:,} documents are exact copies and {self.near:,} near copies of others; "
            f"each stays in one part of the split with what it copies: documents {pairs}"
        )


class _Words(NamedTuple):
    """Hashes of all words, document after document; an exact copy of an earlier document has none."""

    hashes: UInt64[np.ndarray, " n_words"]
    lengths: Int[np.ndarray, " n_documents"]


class _Shared(NamedTuple):
    """Every occurrence of a passage that stands in several documents: by passage, then by place."""

    passage: Int[np.ndarray, " n_rows"]
    document: Int[np.ndarray, " n_rows"]
    place: Int[np.ndarray, " n_rows"]
    """Index of the passage's first word among all words."""
    spread: Int[np.ndarray, " n_rows"]
    """Documents that hold the passage."""


def decode_entities(text: str) -> str:
    """`text` with HTML entities decoded, those that were escaped twice as well: `&amp;eacute;` becomes é.

    An entity ends with its semicolon: `R&D` and `?a=1&copy=2` stay.
    """
    return _ENTITY.sub(_character, _ENTITY.sub(_character, text)) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    found = entity.group()
    return html.unescape(found) if found[1] == "#" else html.entities.html5.get(found[1:], found)


def normalised_words(text: str) -> list[str]:
    """Words of `text` without case, punctuation, white space, invisible characters, HTML entities and variants of
    characters (NFKC)."""
    seen = _INVISIBLE.sub("", decode_entities(text))
    return _WORD.findall(unicodedata.normalize("NFKC", seen).casefold())


def has_invisible(text: str) -> bool:
    """Whether `text` holds characters that are not seen, such as soft hyphens, which `normalised_words` leaves out."""
    return _INVISIBLE.search(decode_entities(text)) is not None


def find_copies(texts: Sequence[str], passage_words: int | None = PASSAGE_WORDS, n_examples: int = 3) -> Copies:
    """Exact copies among `texts`, and near copies by passages of `passage_words` words; None: exact copies only.

    Of documents with fewer words only exact copies are found. Documents without a word (emoji, ruled lines) are
    compared as they stand. The result depends on the texts and their order alone.
    """
    exact, words = _exact(texts)
    again = np.flatnonzero(exact != np.arange(len(texts)))
    examples = [Example(int(exact[i]), int(i), _common(texts[i], texts[i], (0, 0))) for i in again[:n_examples]]
    if passage_words is None:
        return Copies(exact, exact, np.zeros(len(texts), dtype=bool), tuple(examples))
    shared = _shared_passages(words, passage_words)
    linking, boilerplate = _linking(shared, words, passage_words)
    passage, document, place, _ = (column[linking] for column in shared)
    links = np.flatnonzero((passage[1:] == passage[:-1]) & (document[1:] != document[:-1]))
    links = links[np.argsort(place[links], kind="stable")]
    first = np.concatenate([exact[again], document[links]])
    second = np.concatenate([again, document[links + 1]])
    groups = _components(first, second, len(texts))
    start = np.cumsum(words.lengths) - words.lengths
    _, distinct = np.unique(groups[document[links]], return_index=True)
    for link in links[distinct[: n_examples - len(examples)]]:
        one, other = int(document[link]), int(document[link + 1])
        places = (int(place[link] - start[one]), int(place[link + 1] - start[other]))
        examples.append(Example(one, other, _common(texts[one], texts[other], places)))
    return Copies(exact, groups, boilerplate, tuple(examples))


def without_copies(texts: Sequence[str], passage_words: int = PASSAGE_WORDS) -> Int[np.ndarray, " n_kept"]:
    """Indices of documents of which no two are exact or near copies: in order, each that copies none kept before it.

    Here every passage counts, boilerplate as well.
    """
    exact, words = _exact(texts)
    shared = _shared_passages(words, passage_words)
    order = np.argsort(shared.document, kind="stable")
    passages = shared.passage[order]
    documents, starts = np.unique(shared.document[order], return_index=True)
    kept = exact == np.arange(len(texts))
    seen = np.zeros(len(passages), dtype=bool)  # one a row, so at least one a passage
    for document, (start, end) in zip(documents, pairwise([*starts, len(passages)]), strict=True):
        kept[document] = not seen[passages[start:end]].any()
        if kept[document]:
            seen[passages[start:end]] = True
    return np.flatnonzero(kept)


def _exact(texts: Sequence[str]) -> tuple[Int[np.ndarray, " n_documents"], _Words]:
    """Exact copies, and the words of the documents that are none."""
    vocabulary: dict[str, int] = {}
    first: dict[bytes | str, int] = {}
    exact = np.arange(len(texts))
    ids: list[np.ndarray] = []
    for i, text in enumerate(texts):
        words = normalised_words(text)
        found = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int32)
        exact[i] = first.setdefault(found.tobytes() if words else text.strip(), i)
        ids.append(found if exact[i] == i else found[:0])
    # one random number a word, so that a sum of products is a hash of a passage
    random = np.random.default_rng(0).integers(2**64, size=len(vocabulary), dtype=np.uint64)
    joined = np.concatenate([np.empty(0, np.int32), *ids])
    return exact, _Words(random[joined], np.array([len(found) for found in ids], dtype=np.int64))


def _shared_passages(words: _Words, n: int) -> _Shared:
    hashes = _passage_hashes(words.hashes, n)
    document = np.repeat(np.arange(len(words.lengths)), words.lengths)
    within = document[: len(hashes)] == document[len(words.hashes) - len(hashes) :]  # not across documents
    n_parts = 1 + len(hashes) // PART
    parts, n_passages = [], 0
    for part in range(n_parts):
        place = np.flatnonzero(within & (hashes % np.uint64(n_parts) == part))
        place = place[np.argsort(hashes[place], kind="stable")]
        new = np.ones(len(place), dtype=bool)
        new[1:] = hashes[place[1:]] != hashes[place[:-1]]
        passage = np.cumsum(new) - 1
        first = new.copy()  # the first time that a passage stands in this document
        first[1:] |= document[place[1:]] != document[place[:-1]]
        spread = np.bincount(passage[first])[passage]
        rows = spread > 1
        _, renumbered = np.unique(passage[rows], return_inverse=True)
        parts.append(_Shared(renumbered + n_passages, document[place[rows]], place[rows], spread[rows]))
        n_passages += int(renumbered.max(initial=-1)) + 1
    return _Shared(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _passage_hashes(words: UInt64[np.ndarray, " n_words"], n: int) -> UInt64[np.ndarray, " n_passages"]:
    """Hash of each run of n words: a polynomial in an odd number, modulo 2⁶⁴."""
    hashes = np.zeros(max(0, len(words) - n + 1), dtype=np.uint64)
    for offset in range(n):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += words[offset : offset + len(hashes)]
    return hashes


def _linking(
    shared: _Shared, words: _Words, n: int
) -> tuple[Bool[np.ndarray, " n_rows"], Bool[np.ndarray, " n_documents"]]:
    """Which passages make copies, and which documents hold boilerplate that does not.

    A passage counts where none of its words is boilerplate, or where most of its document is.
    """
    n_documents = len(words.lengths)
    common = shared.place[shared.spread > max(COMMON_DOCUMENTS, COMMON_SHARE * n_documents)]
    changes = np.bincount(common, minlength=len(words.hashes) + n + 1)
    changes -= np.bincount(common + n, minlength=len(changes))
    covered = np.concatenate([[0], np.cumsum(np.cumsum(changes) > 0)])  # boilerplate words before each word
    ends = np.cumsum(words.lengths)
    boilerplate = covered[ends] - covered[ends - words.lengths]
    mostly = boilerplate > words.lengths / 2
    free = covered[shared.place + n] == covered[shared.place]
    return free | mostly[shared.document], (boilerplate > 0) & ~mostly


def _components(
    first: Int[np.ndarray, " n_links"], second: Int[np.ndarray, " n_links"], n_documents: int
) -> Int[np.ndarray, " n_documents"]:
    """First document of each document's connected component."""
    links = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n_documents, n_documents))
    _, component = connected_components(links, directed=False)
    _, first_member = np.unique(component, return_index=True)
    return first_member[component]


def _common(one: str, other: str, places: tuple[int, int]) -> str:
    """The words that two texts share from these places on, as many as are quoted."""
    words = (normalised_words(text)[place:][:EXAMPLE_WORDS] for text, place in zip((one, other), places, strict=True))
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(*words, strict=False))
    return " ".join(word for word, _ in pairs)
