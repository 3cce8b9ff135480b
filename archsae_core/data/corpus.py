"""The documents under study: embedded news, synthetic text, a local file or a dataset of the hub; and their split."""

import functools
import hashlib
import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from archsae_core.config import CorpusConfig
from archsae_core.data import text_files
from archsae_core.data.assets import EMBEDDED_TEXTS, text_folder
from archsae_core.data.text_files import Rows, TextError


class Corpus(NamedTuple):
    """Documents in the order of their source."""

    texts: tuple[str, ...]
    """One string a document, none empty."""
    labels: tuple[str, ...] | None
    """One topic label a document, where the source has labels."""
    fingerprint: str
    """Hash of texts and labels: 16 hex digits."""


class Split(NamedTuple):
    """Disjoint sets of documents, none empty, in shuffled order: the first n of each are a fair sample."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    heldout: tuple[int, ...]


def load_text(config: CorpusConfig) -> Corpus:
    """Documents that `config.text` names.

    Empty documents are dropped. Raises TextError naming the field to change where the source is missing, empty,
    unreadable, of an unknown kind, lacks a column or holds fewer than 3 documents; AssetError where the embedded text
    cannot be had.
    """
    if config.text in EMBEDDED_TEXTS:
        rows = _embedded(config.text)
    elif config.text == "synthetic":
        rows = synthetic()
    else:
        rows = text_files.read(config)
    kept = [i for i, text in enumerate(rows.texts) if text.strip()]
    if len(kept) < 3:
        raise TextError(f"text = {config.text!r}: {len(kept)} documents are too few to split: at least 3 are needed")
    texts = tuple(rows.texts[i] for i in kept)
    labels = None if rows.labels is None else tuple(rows.labels[i] for i in kept)
    return Corpus(texts, labels, _fingerprint(texts, labels))


def split_documents(n_documents: int, config: CorpusConfig) -> Split:
    """Split documents 0 … n_documents − 1 by the two fractions of `config`, each part at least one document.

    The permutation is fixed: a split belongs to the text, so that seeds differ in training only. Raises TextError for
    fewer than 3 documents.
    """
    if n_documents < 3:
        raise TextError(f"text = {config.text!r}: {n_documents} documents are too few to split: at least 3 are needed")
    order = shuffled(n_documents)
    n_heldout = max(1, round(n_documents * config.heldout_fraction))
    n_validation = max(1, min(round(n_documents * config.validation_fraction), n_documents - n_heldout - 1))
    heldout, rest = order[:n_heldout], order[n_heldout:]
    return Split(train=rest[n_validation:], validation=rest[:n_validation], heldout=heldout)


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


def _embedded(name: str) -> Rows:
    paths = sorted(text_folder(name).glob("*/*.txt"))
    return Rows([_decode_news(path.read_bytes()) for path in paths], [path.parent.name for path in paths])


def _decode_news(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # one of the 2,225 articles carries a latin-1 pound sign


def _fingerprint(texts: Sequence[str], labels: Sequence[str] | None) -> str:
    digest = hashlib.sha256()
    for item in itertools.chain(texts, ["labels"], labels or ()):
        content = item.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:16]
