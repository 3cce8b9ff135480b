"""How well near copies are found, by the length of the passage that documents share: `python -m benchmarks.copies`.

Copies are planted among embedded documents of which no two share eight words, so that every other pair that is found is
wrong; and of the groups that are found in the real text, how much two documents have in common is counted.
"""

import random
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from archsae_core.config import CorpusConfig
from archsae_core.data.assets import probe_tables
from archsae_core.data.copies import find_copies, normalised_words, without_copies
from archsae_core.data.corpus import load_text
from archsae_core.data.sae_probes import long_rows

LENGTHS = (8, 10, 13, 16, 20, 25, 30, 50)
"""Words of the passage that are tried."""
PAIRS = 200
"""Planted copies of each kind."""
SHINGLE = 5
"""Words of the runs by which the overlap of two documents is counted."""


Plant = Callable[[str, str], tuple[str, str]]


class Recall(NamedTuple):
    kind: str
    """What was done to a document."""
    found: tuple[float, ...]
    """Share of the planted copies that each of `LENGTHS` finds."""
    wrong: tuple[int, ...]
    """Other pairs that it finds."""


class Precision(NamedTuple):
    length: int
    """Words of the passage."""
    groups: int
    """Groups of near copies."""
    overlapping: float
    """Share of them in which two documents have a twentieth of the shorter one in common, or more."""
    grouped: int
    """Documents in groups."""
    largest: int
    """Documents of the largest group."""


def edited(text: str, share: float, generator: random.Random, vocabulary: list[str]) -> str:
    """Each word is replaced, dropped or followed by another one with this probability."""
    words = []
    for word in text.split():
        if generator.random() >= share:
            words.append(word)
            continue
        words.extend(generator.choice(([generator.choice(vocabulary)], [], [word, generator.choice(vocabulary)])))
    return " ".join(words)


def holding(text: str, other: str, n: int, *, opening: bool) -> str:
    """`other` with the first n words of `text` before it, or with n words of its middle in the middle."""
    words, others = text.split(), other.split()
    start, place = (0, 0) if opening else ((len(words) - n) // 2, len(others) // 2)
    return " ".join([*others[:place], *words[start : start + n], *others[place:]])


def kinds(generator: random.Random, vocabulary: list[str]) -> dict[str, tuple[int, Plant]]:
    """Words that a document needs, and a pair of copies made from a document and an unrelated one."""
    found: dict[str, tuple[int, Plant]] = {}
    for length in (100, 400):
        for share in (0.02, 0.05, 0.1, 0.15, 0.2):

            def pair(text: str, other: str, length: int = length, share: float = share) -> tuple[str, str]:
                start = " ".join(text.split()[:length])
                return start, edited(start, share, generator, vocabulary)

            found[f"{share:.0%} of {length} words edited"] = length, pair
    for n in (25, 50):
        for name, opening in (("opening", True), ("middle", False)):

            def pair(text: str, other: str, n: int = n, opening: bool = opening) -> tuple[str, str]:
                return text, holding(text, other, n, opening=opening)

            found[f"the same {name} of {n} words"] = 150, pair
    return found


def recall(texts: list[str]) -> list[Recall]:
    """Planted copies that are found."""
    generator = random.Random(0)
    clean = [texts[i] for i in without_copies(texts, min(LENGTHS))]
    generator.shuffle(clean)
    vocabulary = " ".join(clean[:500]).split()
    rows = []
    for name, (needed, plant) in kinds(generator, vocabulary).items():
        pool = [text for text in clean if len(text.split()) >= needed]
        pairs = [plant(pool[i], pool[-1 - i]) for i in range(PAIRS)]
        found, wrong = [], []
        for length in LENGTHS:
            groups = find_copies([one for one, _ in pairs] + [other for _, other in pairs], length).groups
            right = groups[:PAIRS] == groups[PAIRS:]
            found.append(float(right.mean()))
            wrong.append(2 * PAIRS - len(np.unique(groups)) - int(right.sum()))
        rows.append(Recall(name, tuple(found), tuple(wrong)))
    return rows


def precision(texts: list[str]) -> list[Precision]:
    """How much the documents of real groups have in common: of each group the pair that shares the first passage."""
    rows = []
    for length in LENGTHS:
        found = find_copies(texts, length, n_examples=len(texts))
        pairs = [(one, other) for one, other, _ in found.examples if found.exact[one] != found.exact[other]]
        size = np.bincount(found.groups)
        common = [overlap(texts[one], texts[other]) >= 0.05 for one, other in pairs]
        share = float(np.mean(common or [1]))
        rows.append(Precision(length, len(pairs), share, int(size[size > 1].sum()), int(size.max())))
    return rows


def overlap(one: str, other: str) -> float:
    """Share of the shorter document's runs of `SHINGLE` words that the other one has too."""
    runs = []
    for text in (one, other):
        words = normalised_words(text)
        runs.append({tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)})
    return len(runs[0] & runs[1]) / max(1, min(map(len, runs)))


def tables(texts: list[str], real: list[str]) -> str:
    """Both tables as Markdown: planted copies among `texts`, real ones among `real`."""
    lines = [f"| planted copy, share found with a passage of | {' | '.join(map(str, LENGTHS))} |"]
    lines.append("|---" * (1 + len(LENGTHS)) + "|")
    found = recall(texts)
    lines += [f"| {row.kind} | {' | '.join(f'{share:.2f}' for share in row.found)} |" for row in found]
    wrong = [sum(row.wrong[i] for row in found) for i in range(len(LENGTHS))]
    lines += [f"| pairs found that were not planted | {' | '.join(map(str, wrong))} |", ""]
    lines += ["| words of the passage | groups | a twentieth or more in common | documents in them | in the largest |"]
    lines += ["|---|---|---|---|---|"]
    for row in precision(real):
        lines.append(f"| {row.length} | {row.groups:,} | {row.overlapping:.1%} | {row.grouped:,} | {row.largest:,} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables; takes minutes."""
    texts = list(load_text(CorpusConfig(text="bbc-news+sae-probes")).texts)
    news = load_text(CorpusConfig(text="bbc-news")).texts
    sys.stdout.write(tables(texts, [*news, *long_rows(probe_tables().glob("*.csv.zst"))]) + "\n")


if __name__ == "__main__":
    main()
