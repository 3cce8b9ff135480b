"""The documents under study: embedded news, synthetic text, a local file or a dataset of the hub; and their split."""

import functools
import hashlib
import itertools
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet
from jaxtyping import Int

from archsae_core.config import CorpusConfig, shown
from archsae_core.data import text_files
from archsae_core.data.assets import EMBEDDED_TEXTS, text_folder
from archsae_core.data.copies import Copies, CopiesReport, Example, decode_entities
from archsae_core.data.sae_probes import DOCUMENTS
from archsae_core.data.text_files import Rows, TextError


class Corpus(NamedTuple):
    """Documents in the order of their source."""

    texts: tuple[str, ...]
    """One string a document, none empty."""
    labels: tuple[str | None, ...] | None
    """One topic label a document, where the source has labels; None for a document without one."""
    fingerprint: str
    """Hash of texts and labels: 16 hex digits."""
    sources: tuple[str, ...] | None = None
    """The part of the text that each document comes from, where it has parts."""
    decoded: int = 0
    """Documents with HTML entities that were decoded."""
    notes: tuple[str, ...] = ()
    """What people should know about how the text was read, in sentences."""
    empty: int = 0
    """Rows and documents that were left out because they hold no text."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The different labels, sorted."""
        return topic_indices(self.labels or ())[0]


class Part(NamedTuple):
    """Documents of a corpus from one source."""

    name: str
    documents: int
    words: int
    """Runs of characters between white space."""


class Split(NamedTuple):
    """Disjoint sets of documents, none empty, in shuffled order: the first n of each are a fair sample."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    heldout: tuple[int, ...]


def load_text(config: CorpusConfig) -> Corpus:
    """Documents that `config.text` names.

    Empty documents are left out and counted. Raises TextError naming the field to change where the source is missing,
    empty, unreadable, of an unknown kind, lacks a column or holds fewer than 3 documents, and for a field that has no
    effect on it; AssetError where the embedded text cannot be had.
    """
    rows = _rows(config)
    plain = [decode_entities(text) for text in rows.texts] if config.decode_entities else rows.texts
    kept = [i for i, text in enumerate(plain) if text.strip()]
    if len(kept) < 3:
        raise TextError(
            f"text = {shown(config.text)}: {len(kept)} documents are too few to split: at least 3 are needed"
        )
    texts = tuple(plain[i] for i in kept)
    labels = None if rows.labels is None else tuple(rows.labels[i] for i in kept)
    sources = None if rows.sources is None else tuple(rows.sources[i] for i in kept)
    decoded = sum(plain[i] != rows.texts[i] for i in kept)
    empty = rows.empty + len(plain) - len(kept)
    return Corpus(texts, labels, _fingerprint(texts, labels), sources, decoded, rows.notes, empty)


def composition(corpus: Corpus, name: str) -> tuple[Part, ...]:
    """What a corpus consists of, the largest part first; one part called `name` where the text has no parts."""
    documents: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text, source in zip(corpus.texts, corpus.sources or [name] * len(corpus.texts), strict=True):
        documents[source] += 1
        words[source] += len(text.split())
    return tuple(Part(part, documents[part], n) for part, n in words.most_common())


def describe(corpus: Corpus, name: str) -> str:
    """One line for people: how many documents of which length, how many topics, how many were left out."""
    length = statistics.median(len(text.split()) for text in corpus.texts)
    topics = f", {len(corpus.topics)} topic{'s' * (len(corpus.topics) > 1)}" if corpus.topics else ""
    decoded = f", HTML entities decoded in {corpus.decoded:,}" if corpus.decoded else ""
    empty = f", {corpus.empty:,} without text left out" if corpus.empty else ""
    return f"{name}: {len(corpus.texts):,} documents of {length:,.0f} words in the median{topics}{decoded}{empty}"


def split_documents(groups: Sequence[int], config: CorpusConfig) -> Split:
    """Split documents 0 … n − 1 by the two fractions of `config`, each part at least one document.

    `groups` holds a number for each document; those of one number stay together, so that the parts come as near to the
    fractions as whole groups allow. The permutation is fixed: a split belongs to the text, so that seeds differ in
    training only. Raises TextError for fewer than 3 documents or groups.
    """
    n_documents = len(groups)
    if n_documents < 3:
        raise TextError(
            f"text = {shown(config.text)}: {n_documents} documents are too few to split: at least 3 are needed"
        )
    order = shuffled(n_documents)
    members: dict[int, list[int]] = {}
    for document in order:
        members.setdefault(groups[document], []).append(document)
    if len(members) < 3:
        fix = "use another text" + (", or set near_copies to false if they only share passages" * config.near_copies)
        reason = f"its {n_documents} documents are copies of {len(members)}, and at least 3 different ones are needed"
        raise TextError(f"text = {shown(config.text)}: {reason}: {fix}")
    n_heldout = max(1, round(n_documents * config.heldout_fraction))
    n_validation = max(1, min(round(n_documents * config.validation_fraction), n_documents - n_heldout - 1))
    heldout, rest = _take(list(members.values()), n_heldout, leave=2)
    validation, rest = _take(rest, n_validation, leave=1)
    rank = {document: place for place, document in enumerate(order)}
    train, validation, heldout = (
        tuple(sorted((document for group in part for document in group), key=rank.__getitem__))
        for part in (rest, validation, heldout)
    )
    return Split(train=train, validation=validation, heldout=heldout)


def _take(groups: list[list[int]], wanted: int, leave: int) -> tuple[list[list[int]], list[list[int]]]:
    """The first groups that fit into `wanted` documents, and the others, `leave` at least.

    One that does not fit is taken where nothing else was, or where it comes nearer than none.
    """
    taken: list[list[int]] = []
    rest: list[list[int]] = []
    missing = wanted
    for place, group in enumerate(groups):
        if len(group) <= missing and len(rest) + len(groups) - place > leave:
            taken.append(group)
            missing -= len(group)
        else:
            rest.append(group)
    smallest = min(rest, key=len)
    if not taken or (len(rest) > leave and len(smallest) - missing < missing):
        taken.append(smallest)
        rest.remove(smallest)
    return taken, rest


def copies_report(found: Copies, documents: Sequence[int], config: CorpusConfig) -> CopiesReport:
    """What `find_copies` found among `documents` (indices into the corpus), and what it would have leaked."""
    n = len(documents)
    first = np.arange(n)
    exact = int((found.exact != first).sum())
    naive = split_documents(first.tolist(), config)
    trained = np.unique(found.groups[list(naive.train)])
    leaked = [int(np.isin(found.groups[list(part)], trained).sum()) for part in (naive.validation, naive.heldout)]
    return CopiesReport(
        documents=n,
        exact=exact,
        near=int((found.groups != first).sum()) - exact,
        largest=int(np.bincount(found.groups).max()),
        boilerplate=int(found.boilerplate.sum()),
        leaked_validation=leaked[0],
        leaked_heldout=leaked[1],
        examples=tuple(
            Example(*sorted((documents[one], documents[other])), words) for one, other, words in found.examples
        ),
    )


def topic_indices(labels: Sequence[str | None]) -> tuple[tuple[str, ...], Int[np.ndarray, " n_documents"]]:
    """The different labels, sorted, and the index of each document's; −1 for a document without a label."""
    names = sorted({label for label in labels if label is not None})
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([index.get(label, -1) for label in labels], dtype=np.int64)


def shuffled(n_documents: int) -> tuple[int, ...]:
    """0 … n_documents − 1 in an order that depends on the number alone."""
    order = list(range(n_documents))
    random.Random(0).shuffle(order)
    return tuple(order)


@functools.cache
def synthetic(n_documents: int = 400) -> Rows:
    """Documents of 40 to 80 words on 4 topics: Zipf-distributed made-up words, half of them the topic's own.

    The generator is fixed. Every tenth word carries markup characters, since real text does and HTML must survive it.
    """
    generator = random.Random(0)
    words = ["".join(pair) for pair in itertools.product(_SYLLABLES, repeat=2)]
    generator.shuffle(words)
    shared, own = words[:80], {topic: words[80 + 40 * i : 120 + 40 * i] for i, topic in enumerate(_TOPICS)}
    labels = [_TOPICS[i % len(_TOPICS)] for i in range(n_documents)]
    return Rows([_sentence(generator, shared, own[label]) for label in labels], labels)


_TOPICS = ("sea", "forest", "market", "music")
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "ve")
_MARKUP = ("<b>", "a<b", "&", "R&D", "</td>", "x>y")


def _sentence(generator: random.Random, shared: Sequence[str], own: Sequence[str]) -> str:
    words = []
    for _ in range(generator.randint(40, 80)):
        if generator.random() < 0.1:
            words.append(generator.choice(_MARKUP))
            continue
        vocabulary = own if generator.random() < 0.5 else shared
        weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
        words.append(generator.choices(vocabulary, weights)[0])
    return " ".join(words) + "."


def _rows(config: CorpusConfig) -> Rows:
    names = config.text.split("+")
    known = [name for name in names if name in EMBEDDED_TEXTS]
    if set(names) <= {"", *known} and "" in names:
        fix = f"give a name before and after each +: {', '.join(EMBEDDED_TEXTS)}"
        raise TextError(f"text = {shown(config.text)}: a name is missing: {fix}")
    if config.text == "synthetic" or known == names:
        columns = ["text_revision", "text_field", "label_field", "text_layout"]
        text_files.refuse_unused(
            config, columns, f"{shown(config.text)} is embedded and has its own documents and topics"
        )
        return synthetic() if config.text == "synthetic" else _joined(names, config)
    if known and not Path(config.text).expanduser().exists():
        unknown = next(name for name in names if name not in EMBEDDED_TEXTS)
        reason = f"{unknown!r} is not embedded, and only embedded texts can be joined: {', '.join(EMBEDDED_TEXTS)}"
        raise TextError(f"text = {shown(config.text)}: {reason}")
    return text_files.read(config)


def _joined(names: Sequence[str], config: CorpusConfig) -> Rows:
    """Embedded texts one after the other. A text without topics has documents without a label."""
    if len(set(names)) < len(names):
        raise TextError(f"text = {shown(config.text)}: names a text twice: name each once")
    parts = [_embedded(name) for name in names]
    texts = [text for part in parts for text in part.texts]
    labels = [label for part in parts for label in part.labels or [None] * len(part.texts)]
    sources = [source for part in parts for source in part.sources or ()]
    return Rows(texts, labels if any(labels) else None, sources)


def _embedded(name: str) -> Rows:
    folder = text_folder(name)
    if (folder / DOCUMENTS).exists():
        columns = pyarrow.parquet.read_table(folder / DOCUMENTS).to_pydict()
        return Rows(columns["text"], None, [f"{name}: {source}" for source in columns["source"]])
    paths = sorted(folder.glob("*/*.txt"))
    texts = [_decode_news(path.read_bytes()) for path in paths]
    return Rows(texts, [path.parent.name for path in paths], [name] * len(paths))


def _decode_news(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # one of the 2,225 articles carries a latin-1 pound sign


def _fingerprint(texts: Sequence[str], labels: Sequence[str | None] | None) -> str:
    digest = hashlib.sha256()
    for item in itertools.chain(texts, ["labels"], labels or ()):
        content = (item or "").encode("utf-8", "surrogatepass")  # no label is empty
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:16]
