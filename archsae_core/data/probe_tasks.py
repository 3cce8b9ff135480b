"""The 113 binary probing tasks of `sae-probes` (Kantamneni et al. 2025, arXiv 2502.16681): prompts, labels and splits.

The splits are the package's own, as version 0.4.2 draws them: `get_train_test_indices` of its `utils_data.py` with seed
42 and as many positive as negative prompts, in the sizes of `generate_sae_activations_normal` of
`generate_sae_activations.py`. Both parts come out shuffled, so that their first prompts are a fair sample.

These splits leak: most tables hold a prompt several times, and on average a fifth of the test prompts are training
prompts too, in some tasks nine tenths. Such test prompts are left out here, and their number is given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv
from jaxtyping import Bool, Int

from archsae_core.data.assets import probe_tables
from archsae_core.data.copies import normalised_words
from archsae_core.data.corpus import synthetic
from archsae_core.data.sae_probes import PromptTable, read_table

MASTER = "probing_datasets_MASTER.csv.zst"
"""The wheel's list of its tables."""
SPLIT_SEED = 42
"""Seed of the package's splits."""
SPLIT_TRAIN, SPLIT_REST = 1024, 100
"""The package trains on so many prompts of a task, but leaves so many at least for the test."""


class Prompts(NamedTuple):
    """Prompts with their labels."""

    texts: tuple[str, ...]
    """One prompt each, as the wheel has it."""
    labels: Bool[np.ndarray, " n_prompts"]
    """True for the task's second class."""


class ProbeTask(NamedTuple):
    """A binary question about a prompt."""

    name: str
    """The package's name with its number, such as `5_hist_fig_ismale`."""
    classes: tuple[str, str]
    """The two values of the target in sorted order."""
    train: Prompts
    test: Prompts
    leaked: int
    """Test prompts left out since their words are those of a training prompt."""


def load_probe_tasks(max_train: int = 512, max_test: int = 256, *, limit: int | None = None) -> tuple[ProbeTask, ...]:
    """The binary tasks in the package's order, with at most so many prompts a part.

    With a `limit`, so many of them, evenly spaced: neighbours ask the same question of other words or classes.
    Raises AssetError where the wheel can neither be found in the cache nor downloaded.
    """
    folder = probe_tables()
    return tuple(_task(folder, name, max_train, max_test) for name in _spaced(_binary_tasks(folder / MASTER), limit))


def made_up_tasks(max_train: int = 512, max_test: int = 256, *, limit: int | None = None) -> tuple[ProbeTask, ...]:
    """Is this document of the synthetic text about that topic? One task a topic, for tests without a network.

    As many of the other documents are drawn, in the way of `own_split`; three quarters of the prompts are for training.
    """
    rows = synthetic()
    topics = sorted({label for label in rows.labels or () if label is not None})
    tasks = []
    for topic in _spaced(topics, limit):
        labels = np.array([label == topic for label in rows.labels or ()])
        n_test = int(labels.sum()) // 2
        parts = own_split(labels, 3 * n_test, n_test)
        parts = zip(parts, (max_train, max_test), strict=True)
        prompts = (Prompts(tuple(rows.texts[i] for i in part[:n]), labels[part[:n]]) for part, n in parts)
        tasks.append(ProbeTask(f"about {topic}", (f"not {topic}", topic), *prompts, leaked=0))
    return tuple(tasks)


def own_split(
    labels: Bool[np.ndarray, " n_prompts"], n_train: int, n_test: int
) -> tuple[Int[np.ndarray, " n_train"], Int[np.ndarray, " n_test"]]:
    """Indices of training and test prompts: `get_train_test_indices` of the package, to the bit.

    Half of each part is positive, one more where the number is odd. Raises ValueError where a class has too few
    prompts.
    """
    generator = np.random.RandomState(SPLIT_SEED)
    rest = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    parts = []
    for size in (n_train, n_test):
        sizes = (size + 1) // 2, size // 2
        drawn = [generator.choice(indices, size=n, replace=False) for indices, n in zip(rest, sizes, strict=True)]
        rest = [np.setdiff1d(indices, taken) for indices, taken in zip(rest, drawn, strict=True)]
        parts.append(np.concatenate(drawn))
    train, test = (generator.permutation(part) for part in parts)
    return train, test


def _binary_tasks(master: Path) -> list[str]:
    with pyarrow.input_stream(master, compression="zstd") as stream:
        table = pyarrow.csv.read_csv(stream, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    rows = zip(table["Dataset save name"].to_pylist(), table["Data type"].to_pylist(), strict=True)
    return [Path(name).stem for name, kind in rows if kind == "Binary Classification"]


def _spaced(names: Sequence[str], limit: int | None) -> list[str]:
    """At most `limit` of the names, evenly spaced from the first to the last."""
    count = len(names) if limit is None else min(limit, len(names))
    return [names[place] for place in np.linspace(0, len(names) - 1, count).round().astype(int)]


def _task(folder: Path, name: str, max_train: int, max_test: int) -> ProbeTask:
    table = read_table(folder / f"{name}.csv.zst")
    classes, positive = np.unique(table.targets, return_inverse=True)
    labels = positive.astype(bool)
    n_train = min(len(labels) - SPLIT_REST, SPLIT_TRAIN)
    train, test = own_split(labels, n_train, len(labels) - n_train - 1)
    train = train[:max_train]
    known = {_words(table.prompts[i]) for i in train}
    kept: list[int] = []
    leaked = 0
    for i in test:
        if len(kept) == max_test:
            break
        if _words(table.prompts[i]) in known:
            leaked += 1
        else:
            kept.append(i)
    return ProbeTask(
        name,
        (str(classes[0]), str(classes[1])),
        _prompts(table, labels, train),
        _prompts(table, labels, np.array(kept, dtype=int)),
        leaked,
    )


def _words(prompt: str) -> str:
    return " ".join(normalised_words(prompt)) or prompt


def _prompts(
    table: PromptTable, labels: Bool[np.ndarray, " n_prompts"], indices: Int[np.ndarray, " n_kept"]
) -> Prompts:
    return Prompts(tuple(table.prompts[i] for i in indices), labels[indices])
