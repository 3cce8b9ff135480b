"""How much of a topic a few features hold: sparse probes fitted on training documents, scored on held-out ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from archsae_core.checks import binary
from archsae_core.data.activations import ActivationSet
from archsae_core.metrics.features import SCAN_ROWS, Scan
from archsae_core.metrics.intervals import Interval, t_interval
from archsae_core.models.sae import SAE


class Passages(NamedTuple):
    """Equally long runs of activations with the topic of their document."""

    rows: Int[Tensor, "passages length"]
    """Rows of the ActivationSet."""
    document: Int[np.ndarray, " passages"]
    topic: Int[np.ndarray, " passages"]
    """Index of the topic."""


class Hits(NamedTuple):
    """Held-out decisions of the one-against-the-rest probes of one dictionary, added up by document."""

    correct: Float[np.ndarray, "documents topics 2"]
    """Passages decided correctly: those of the topic, and those of other topics."""
    total: Float[np.ndarray, "documents topics 2"]
    topic: Int[np.ndarray, " documents"]
    """Topic of each document."""


class NoPassages(ValueError):
    """The text has nothing that probes could be fitted on or scored on; the message says what is missing."""


def passages(
    activations: ActivationSet, topics: Int[np.ndarray, " documents"], limit: int, length: int, seed: int = 0
) -> Passages:
    """At most `limit` random passages of `length` consecutive kept rows of one window; `topics` of all documents.

    Documents of topic −1 have no label and are left out. The same for every dictionary. Raises NoPassages where no
    window of a labelled document is long enough.
    """
    ends = (activations.window[activations.kept].diff() != 0).nonzero()[:, 0] + 1
    bounds = pairwise([0, *ends.tolist(), len(activations.kept)])
    first = torch.tensor([start for a, b in bounds for start in range(a, b - length + 1, length)], dtype=torch.long)
    labelled = topics[activations.document[activations.kept[first]].numpy()] >= 0
    first = first[torch.from_numpy(labelled)]
    if not len(first):
        raise NoPassages(f"no labelled document has {length} consecutive activations, the length of a passage")
    chosen = first[torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))[:limit].sort().values]
    rows = activations.kept[chosen[:, None] + torch.arange(length)]
    document = activations.document[rows[:, 0]].numpy()
    return Passages(rows, document, topics[document])


def pooled_codes(found: Scan, about: Passages) -> Float[csc_array, "passages n_features"]:
    """Mean code of every feature over each passage, from a scan of `about.rows` and perhaps more rows."""
    length, rows = about.rows.shape[1], about.rows.flatten().numpy()
    passage = np.full(max(rows.max(), found.rows.max(initial=0)) + 1, -1)
    passage[rows] = np.arange(len(rows)) // length
    index = passage[found.rows]
    inside = index >= 0
    offsets = np.concatenate([[0], np.cumsum(inside)])[found.offsets]
    # Several tokens of a passage may fire the same feature: the sum of duplicates is what pooling needs.
    shape = (len(about.rows), found.n_features)
    table = csc_array((found.values[inside].astype(float) / length, index[inside], offsets), shape=shape)
    table.sum_duplicates()
    return table


def pool(sae: SAE, activations: ActivationSet, about: Passages) -> Float[csc_array, "passages n_features"]:
    """`pooled_codes` where nothing else is wanted of the codes: no feature's firings are sorted for it."""
    length, tables = about.rows.shape[1], []
    for rows in about.rows.split(max(1, SCAN_ROWS // length)):
        codes = sae.encode(activations.gather(rows.flatten()).to(sae.mean.device))
        values, indices = codes.values.cpu().numpy().astype(float) / length, codes.indices.cpu().numpy()
        starts = np.arange(0, values.size + 1, length * values.shape[1])
        tables.append(csr_array((values.ravel(), indices.ravel(), starts), shape=(len(rows), sae.n_features)))
        tables[-1].sum_duplicates()
    return vstack(tables, format="csc")


def pooled_activations(x: Float[Tensor, "tokens d_model"], n_passages: int) -> Float[csc_array, "n_passages d_model"]:
    """Mean raw activation of each passage, for the probe that no dictionary limits."""
    return csc_array(x.reshape(n_passages, -1, x.shape[1]).double().mean(dim=1).numpy())


def mean_difference(
    table: Float[csc_array, "passages features"], positive: Bool[np.ndarray, " passages"]
) -> Float[np.ndarray, " features"]:
    """|mean on the topic − mean elsewhere| / standard deviation of each feature; 0 for one that never varies."""
    rows, positive = csr_array(table), binary("positive", positive)
    inside, outside = rows[positive].mean(axis=0), rows[~positive].mean(axis=0)
    mean = rows.mean(axis=0)
    spread = np.sqrt(np.maximum(rows.power(2).mean(axis=0) - mean**2, 0))
    return np.where(spread > 1e-9, np.abs(inside - outside) / np.maximum(spread, 1e-12), 0.0)


def probe(
    train: tuple[Float[csc_array, "train_passages features"], Passages],
    test: tuple[Float[csc_array, "test_passages features"], Passages],
    sizes: Sequence[int | None],
) -> dict[int | None, Hits]:
    """One-against-the-rest logistic regressions on the k features that differ most, for every k of `sizes` (None: all).

    k-sparse probing of Gurnee et al. (2023): features are ranked by the standardised difference of their means, on the
    training passages alone, and so are the columns' scales. Topics are weighted equally within a probe.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, which reading results need not wait for

    names = np.unique(train[1].topic)
    decided = {k: np.zeros((len(test[1].topic), len(names)), dtype=bool) for k in sizes}
    for column, name in enumerate(names):
        positive = train[1].topic == name
        order = np.argsort(-mean_difference(train[0], positive), kind="stable")
        for k in sizes:
            chosen = order[:k]
            x, y = train[0][:, chosen].toarray(), test[0][:, chosen].toarray()
            centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
            model = LogisticRegression(class_weight="balanced", max_iter=300)
            decided[k][:, column] = model.fit((x - centre) / scale, positive).predict((y - centre) / scale)
    return {k: _hits(found, test[1], names) for k, found in decided.items()}


def _hits(decided: Bool[np.ndarray, "passages topics"], test: Passages, names: np.ndarray) -> Hits:
    documents, first, owner = np.unique(test.document, return_index=True, return_inverse=True)
    truth = test.topic[:, None] == names
    correct, total = (np.zeros((len(documents), len(names), 2)) for _ in range(2))
    for side, where in enumerate((truth, ~truth)):
        np.add.at(correct[:, :, side], owner, where & (decided == truth))
        np.add.at(total[:, :, side], owner, where)
    return Hits(correct, total, np.searchsorted(names, test.topic[first]))


def accuracy(
    correct: Float[np.ndarray, "*draws topics 2"], total: Float[np.ndarray, "*draws topics 2"]
) -> Float[np.ndarray, "*draws"]:
    """Chance-normalised accuracy: mean over topics of 2 · balanced accuracy − 1. 0 is guessing, 1 never wrong.

    A topic that has no passages, or all of them, cannot be scored and does not count; NaN where none can be.
    """
    scored = (total > 0).all(axis=-1)
    balanced = (correct / np.where(total > 0, total, 1)).sum(axis=-1) - 1
    with np.errstate(invalid="ignore"):
        return np.asarray((balanced * scored).sum(axis=-1) / scored.sum(axis=-1))


def accuracy_interval(hits: Sequence[Hits], minus: Sequence[Hits] = (), *, n: int = 1000, seed: int = 0) -> Interval:
    """Mean accuracy over seeds, less that of a second arm, with an interval over seeds and documents.

    The variance is that between seeds plus that of drawing documents with replacement: within their topic, so that none
    is lost, and the same ones for every seed and for both arms (paired); seeds are paired likewise. No interval for
    fewer than 3 seeds, or where a topic has fewer than 2 documents.
    """
    topic = hits[0].topic
    groups = [np.flatnonzero(topic == name) for name in np.unique(topic)]
    (scores,) = _gain_by_seed(hits, minus, np.ones((1, len(topic))))
    estimate = float(scores.mean())
    if len(hits) < 3 or min(map(len, groups)) < 2:
        return Interval(estimate, None, None)
    generator = np.random.default_rng(seed)
    weights = np.zeros((n, len(topic)))
    for group in groups:
        weights[:, group] = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), size=n)
    variance = scores.var(ddof=1) / len(hits) + _gain_by_seed(hits, minus, weights).mean(axis=1).var()
    return t_interval(estimate, float(variance), len(hits))


def _gain_by_seed(
    hits: Sequence[Hits], minus: Sequence[Hits], weights: Float[np.ndarray, "draws documents"]
) -> Float[np.ndarray, "draws seeds"]:
    return _by_seed(hits, weights) - (_by_seed(minus, weights) if minus else 0.0)


def _by_seed(hits: Sequence[Hits], weights: Float[np.ndarray, "draws documents"]) -> Float[np.ndarray, "draws seeds"]:
    sums = [[np.tensordot(weights, part, axes=1) for part in (one.correct, one.total)] for one in hits]
    return np.stack([accuracy(correct, total) for correct, total in sums], axis=1)


class SingleProbe(NamedTuple):
    """How well each feature alone tells one topic from the rest."""

    auc: Float[np.ndarray, " features"]
    """Held-out AUROC; 0.5 is chance."""
    topic: Int[np.ndarray, " features"]
    """Index of the topic that it tells best on the training passages; -1 where it tells none."""


def single_feature_probe(
    train: tuple[Float[csc_array, "train_passages features"], Passages],
    test: tuple[Float[csc_array, "test_passages features"], Passages],
) -> SingleProbe:
    """Held-out AUROC of each feature alone for the one topic that it tells best on the training passages.

    The sign too is the training passages': a feature may be the absence of a topic. Only topics that the held-out
    passages have too, beside others, are candidates: no other could be scored.
    """
    best = np.zeros(train[0].shape[1])
    held, topic = np.full(train[0].shape[1], 0.5), np.full(train[0].shape[1], -1)
    scored_topics = np.unique(test[1].topic)
    names = np.intersect1d(train[1].topic, scored_topics) if len(scored_topics) > 1 else scored_topics[:0]
    for name, fitted, scored in zip(names, _topic_aucs(*train, names), _topic_aucs(*test, names), strict=True):
        better = np.abs(fitted - 0.5) > best
        best[better] = np.abs(fitted - 0.5)[better]
        held[better] = np.where(fitted > 0.5, scored, 1 - scored)[better]
        topic[better] = name
    return SingleProbe(held, topic)


def single_feature_auc(
    train: tuple[Float[csc_array, "train_passages features"], Passages],
    test: tuple[Float[csc_array, "test_passages features"], Passages],
) -> Float[np.ndarray, " features"]:
    """The AUROC of `single_feature_probe`: 0.5 is chance."""
    return single_feature_probe(train, test).auc


def _topic_aucs(
    table: Float[csc_array, "passages features"], about: Passages, names: Int[np.ndarray, " topics"]
) -> Float[np.ndarray, "topics features"]:
    blocks = (table[:, first : first + 512].toarray() for first in range(0, table.shape[1], 512))
    return np.concatenate([_aucs(block, about.topic == names[:, None]) for block in blocks], axis=1)


def auc(scores: Float[np.ndarray, "n columns"], positive: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " columns"]:
    """AUROC of every column, from ranks (ties count half); 0.5 where one class is missing."""
    return _aucs(scores, positive[None])[0]


def _aucs(
    scores: Float[np.ndarray, "n columns"], positive: Bool[np.ndarray, "classes n"]
) -> Float[np.ndarray, "classes columns"]:
    """`auc` for several ways to choose the positive rows: ranks are found once."""
    from scipy.stats import rankdata  # takes most of a second, which reading results need not wait for

    inside = positive.sum(axis=1, keepdims=True)
    pairs = inside * (positive.shape[1] - inside)
    above = positive.astype(float) @ rankdata(scores, axis=0) - inside * (inside + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)
