"""Notebook 07: sparse topic probes of every arm, with baselines. How much of a topic do a few features hold?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.sparse import csc_array
from torch import Tensor

from archsae_core.data.activations import ActivationSet
from archsae_core.data.corpus import topic_indices
from archsae_core.metrics import features, probing
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.probing import Hits, NoPassages, Passages
from archsae_core.metrics.stability import Side, unrelated
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE
from archsae_core.progress import track
from archsae_study.engine.costs import Cost, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments.structure import at_step_0
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS

PASSAGE = 32
"""Tokens in a passage, or half a window where that is shorter."""
TRAIN_PASSAGES, HELDOUT_PASSAGES = 1024, 512
"""Passages that probes are fitted on and scored on, the same for every dictionary."""
MOST_TOPICS = 32
"""Topics that are probed, those with most documents first: a probe a topic, size and dictionary, 32 take minutes."""
SIZES = (1, 5, 20)
"""Features a probe may use."""
HEADLINE_SIZE = 5


@dataclass(frozen=True)
class ProbeData:
    """Passages of one part of the documents."""

    activations: ActivationSet
    about: Passages

    def scan(self, sae: SAE) -> features.Scan:
        """Codes of every token of the passages."""
        return features.scan(sae, self.activations, self.about.rows.flatten())

    def pool(self, sae: SAE) -> tuple[Float[csc_array, "passages n_features"], Passages]:
        """Mean codes of each passage."""
        return probing.pool(sae, self.activations, self.about), self.about


@dataclass(frozen=True)
class ProbeRow:
    """One arm, or one baseline."""

    key: str
    """Of an arm, or `step 0 KEY`, `random directions`, `raw activations`."""
    label: str
    trained: bool
    seeds: int
    accuracy: dict[str, Interval]
    """By the number of features, `all` where there is no limit. 0 is guessing, 1 never wrong."""
    entropy: float | None
    """Median over features of the entropy, in bits, of the token under their largest codes."""
    entropy_features: float
    """Features that fire often enough for it, mean over seeds."""


@dataclass(frozen=True)
class ProbeGain:
    """A primary contrast in one size of probe, paired over documents and seeds. Exploratory."""

    contrast: str
    size: int
    gain: Interval


@dataclass(frozen=True)
class ProbingResult:
    """Topic probes, or why there are none."""

    reason: str
    """Empty where there are."""
    topics: int = 0
    dropped: tuple[str, ...] = ()
    """Topics without passages in one part of the text, or beyond the `MOST_TOPICS` with most documents."""
    passage: int = 0
    """Tokens."""
    passages: tuple[int, int] = (0, 0)
    """To fit, to score."""
    documents: tuple[int, int] = (0, 0)
    rows: tuple[ProbeRow, ...] = ()
    gains: tuple[ProbeGain, ...] = ()


def random_directions(study: Study) -> SAE:
    """Random directions with the mean and covariance of the trained archetypal atoms, as encoder and decoder."""
    atoms = unrelated(Side(study.sae(study.main_run("ra")).atoms().detach().cpu()), seed=0).atoms
    return SAE(FreeDictionary(atoms), study.config.dictionary.k, *study.normalizer).to(study.device)


def topics_of(study: Study) -> np.ndarray | None:
    """Index of every document's topic, −1 for one without; None where the text has no labels or only one."""
    names, topic = topic_indices(study.corpus.labels or ())
    return topic if len(names) > 1 else None


def probed(train: np.ndarray, heldout: np.ndarray) -> np.ndarray:
    """Topics that can be probed, of the topics of the documents of both parts: those that both parts have.

    At most `MOST_TOPICS`, those with most documents. Raises NoPassages for fewer than two: a probe needs another one.
    """
    names, count = np.unique(train[np.isin(train, heldout) & (train >= 0)], return_counts=True)
    found = np.sort(names[np.argsort(-count, kind="stable")[:MOST_TOPICS]])
    if len(found) < 2:
        n = len(np.unique(np.concatenate([train, heldout])))
        raise NoPassages(f"of {n} topics, {len(found)} have documents both in the training and in the held-out text")
    return found


def probe_data(study: Study) -> tuple[ProbeData, ProbeData]:
    """Passages of the documents of probed topics, training and held out. Raises NoPassages where there are none."""
    topics = topics_of(study)
    if topics is None:
        raise NoPassages("the text has one topic" if study.corpus.topics else "the text has no topic labels")
    found = probed(*(topics[np.unique(getattr(study.tokens, part).document)] for part in ("train", "heldout")))
    topics = np.where(np.isin(topics, found), topics, -1)
    length = min(PASSAGE, study.config.language_model.context // 2)
    parts = ((study.train_activations, TRAIN_PASSAGES), (study.heldout_activations, HELDOUT_PASSAGES))
    train, test = (ProbeData(part, probing.passages(part, topics, limit, length)) for part, limit in parts)
    if len(_scored(train, test)) < 2:
        raise NoPassages("fewer than two topics have passages both in the training and in the held-out text")
    return train, test


def _scored(train: ProbeData, test: ProbeData) -> list[int]:
    """Topics that have passages in both parts: a probe of any other could not be scored."""
    return np.intersect1d(train.about.topic, test.about.topic).tolist()


def build(study: Study) -> ProbingResult:
    """Probe every arm over its seeds, and the baselines."""
    try:
        data = probe_data(study)
    except NoPassages as error:
        return ProbingResult(str(error))
    rows, hits = [], {}
    for arm in track(study.config.comparison.arms, "probing", unit="arm"):
        measured = [measure(study.sae(run), data) for run in arm_runs(study.config, arm)]
        hits[arm] = [found for found, _ in measured]
        rows.append(_row(arm, ARMS[arm].title, True, measured))
    for label, sae in baselines(study).items():
        rows.append(_row(label, label, False, [measure(sae, data)]))
    train, test = (part.about for part in data)
    return ProbingResult(
        reason="",
        topics=len(_scored(*data)),
        dropped=tuple(name for i, name in enumerate(study.corpus.topics) if i not in _scored(*data)),
        passage=train.rows.shape[1],
        passages=(len(train.rows), len(test.rows)),
        documents=(len(np.unique(train.document)), len(np.unique(test.document))),
        rows=(*rows, _raw_row(data)),
        gains=tuple(_gains(hits)),
    )


def baselines(study: Study) -> dict[str, SAE]:
    """Dictionaries at step 0 and one of random directions, by label."""
    starts = {role: at_step_0(study, study.main_run(role)) for role in ("topk", "topk-kmeans")}
    labels = {"topk": "random atoms, untrained", "topk-kmeans": "centroids, untrained"}
    return {labels[role]: sae for role, sae in starts.items()} | {"random directions": random_directions(study)}


def measure(sae: SAE, data: tuple[ProbeData, ProbeData]) -> tuple[dict[int | None, Hits], list[float | None]]:
    """Held-out decisions of the probes of every size, and the token entropy of every feature's top contexts."""
    train, test = data
    found = test.scan(sae)
    pooled = train.pool(sae), (probing.pooled_codes(found, test.about), test.about)
    return probing.probe(*pooled, SIZES), features.token_entropy(found, test.activations)


def _row(key: str, label: str, trained: bool, measured: Sequence[tuple[dict, list]]) -> ProbeRow:
    entropy = [[value for value in found[1] if value is not None] for found in measured]
    return ProbeRow(
        key=key,
        label=label,
        trained=trained,
        seeds=len(measured),
        accuracy={str(k): probing.accuracy_interval([found[0][k] for found in measured]) for k in SIZES},
        entropy=float(np.mean([np.median(values) for values in entropy if values])) if any(entropy) else None,
        entropy_features=float(np.mean([len(values) for values in entropy])),
    )


def _raw_row(data: tuple[ProbeData, ProbeData]) -> ProbeRow:
    """The same probes on the residual stream's own coordinates, and on all of them: the ceiling."""
    tables = []
    for part in data:
        x: Tensor = part.activations.gather(part.about.rows.flatten())
        tables.append((probing.pooled_activations(x, len(part.about.rows)), part.about))
    found = probing.probe(*tables, (*SIZES, None))
    accuracy = {"all" if k is None else str(k): probing.accuracy_interval([hits]) for k, hits in found.items()}
    return ProbeRow("raw activations", "raw activations", False, 1, accuracy, None, 0.0)


def _gains(hits: dict[str, list[dict[int | None, Hits]]]) -> list[ProbeGain]:
    found = []
    for contrast in contrasts.PRIMARY:
        if {contrast.ra, contrast.free} <= hits.keys():
            seeds = min(len(hits[contrast.ra]), len(hits[contrast.free]))
            for size in SIZES:
                pair = ([one[size] for one in hits[arm][:seeds]] for arm in (contrast.ra, contrast.free))
                found.append(ProbeGain(contrast.key, size, probing.accuracy_interval(*pair)))
    return found


def needed(study: Study) -> list[Run]:
    """Every seed of every arm, and the dictionaries whose start and directions are baselines."""
    arms = [run for arm in study.config.comparison.arms for run in arm_runs(study.config, arm)]
    return [*arms, study.main_run("ra")]


def _cost(study: Study) -> Cost:
    """Every run and three baselines read all passages; sorting codes and fitting probes takes about as long again."""
    count = len(needed(study)) + 2
    return table_cost(study, encoded=2 * count * PASSAGE * (TRAIN_PASSAGES + HELDOUT_PASSAGES))


TABLE = Table(
    name="probing", result=ProbingResult, build=build, runs=needed, fields=("arms", "n_seeds", "seed"), cost=_cost
)
