"""Notebook 05: matched features of two seeds, one put in place of the other. Is a matched feature the same feature?"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float

from archsae_core.metrics import features
from archsae_core.metrics import swap as swapping
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.reconstruction import bootstrap_interval
from archsae_core.progress import track
from archsae_study.engine.costs import Cost, spliced, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments.reappearance import compared_arms, needed
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import Config

FEATURES, WINDOWS, CONTEXT = 32, 2, 64
"""Features an arm at most, windows a feature, and tokens of each window."""
FEWEST = 8
"""Features an arm at least: in between, the windows of an arm hold a third of `behaviour_tokens`."""
EDGES = (-1.0, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Bins of the cosine of matched pairs."""


@dataclass(frozen=True)
class SwapPoint:
    """One matched pair."""

    cosine: float
    partner: float
    """KL in nats of putting the match in the feature's place, over its windows."""
    removed: float
    """KL of putting nothing there."""


@dataclass(frozen=True)
class SwapRow:
    """Pairs of one arm, or of one bin of cosines over all arms."""

    label: str
    arm: str | None
    low: float | None
    """The bin's cosines; None for an arm."""
    high: float | None
    pairs: int
    cosine: float | None
    """Mean of the pairs."""
    share: dict[str, Interval | None]
    """By replacement: its KL as a share of the KL of removing the feature. 0 does what the feature does, 1 nothing."""


@dataclass(frozen=True)
class SwapResult:
    """Swaps by arm and by cosine, or why there are none."""

    reason: str
    """Empty where there are."""
    arms: tuple[SwapRow, ...] = ()
    bins: tuple[SwapRow, ...] = ()
    points: dict[str, tuple[SwapPoint, ...]] | None = None
    """By arm."""


def build(study: Study) -> SwapResult:
    """Matched pairs of the first two seeds of every compared arm."""
    if study.config.dictionary.n_features < 3:
        return SwapResult("a feature's part can be replaced by its match, the next one and another from 3 features on")
    arms, points, pooled = [], {}, []
    for arm in track(compared_arms(study), "swap", unit="arm"):
        if len(arm_runs(study.config, arm)) < 2:
            continue
        pairs, sums = _swap_arm(study, arm)
        if not len(sums):
            continue
        cosine = pairs.cosine[:, 0].numpy()
        pooled.append((cosine, sums))
        points[arm] = tuple(
            SwapPoint(float(c), float(row[0]), float(row[-1])) for c, row in zip(cosine, sums, strict=True)
        )
        arms.append(SwapRow(ARMS[arm].title, arm, None, None, len(sums), float(cosine.mean()), _shares(sums)))
    if not arms:
        return SwapResult("no feature of two seeds fires in two windows of the held-out text")
    cosine, sums = (np.concatenate(part) for part in zip(*pooled, strict=True))
    bins = [_bin(low, high, cosine, sums) for low, high in pairwise(EDGES)]
    return SwapResult("", tuple(arms), tuple(one for one in bins if one.pairs), points)


def _bin(low: float, high: float, cosine: np.ndarray, sums: np.ndarray) -> SwapRow:
    inside = (cosine > low) & (cosine <= high + 1e-6 * (high == 1))
    mean = float(cosine[inside].mean()) if inside.any() else None
    label = f"{max(low, 0):g} to {high:g}"
    return SwapRow(label, None, low, high, int(inside.sum()), mean, _shares(sums[inside]))


def _swap_arm(study: Study, arm: str) -> tuple[swapping.Pairs, Float[np.ndarray, "pairs 4"]]:
    """The sampled pairs of seeds 0 and 1, and the KL of each variant summed over the pair's windows."""
    saes = tuple(study.sae(run) for run in arm_runs(study.config, arm)[:2])
    heldout = study.heldout_activations
    rows = heldout.kept[(heldout.position[heldout.kept] < CONTEXT)][:16384]
    scans = [features.scan(sae, heldout, rows) for sae in saes]
    rates = [torch.from_numpy(np.diff(scan.offsets) / len(rows)).float() for scan in scans]
    where = [np.unique(heldout.window[scans[0].firings(f)[1]].numpy()) for f in range(saes[0].n_features)]
    eligible = torch.tensor([f for f, windows in enumerate(where) if len(windows) >= WINDOWS], dtype=torch.int64)
    pairs = swapping.choose_pairs(*saes, tuple(rates), eligible, swapped_features(study.config))
    generator, windows = np.random.default_rng(0), []
    if not len(eligible):
        return pairs, np.zeros((0, len(swapping.VARIANTS)))
    for place, feature in enumerate(pairs.feature.tolist()):
        chosen = generator.permutation(where[feature])[:WINDOWS]
        windows += [(place, study.tokens.heldout.ids[window][:CONTEXT]) for window in chosen]
    limit = study.train_activations.threshold
    found = swapping.swap(study.model, study.config.language_model.layer, saes, pairs, windows, max_norm=limit)
    return pairs, np.add.reduceat(found.kl, np.arange(0, len(windows), WINDOWS), axis=0)


def swapped_features(config: Config) -> int:
    """Features an arm."""
    return min(FEATURES, max(FEWEST, config.comparison.behaviour_tokens // (3 * WINDOWS * CONTEXT)))


def _shares(sums: Float[np.ndarray, "pairs 4"]) -> dict[str, Interval | None]:
    """KL of each replacement as a share of the KL of removing the feature, with an interval over pairs."""
    shares: dict[str, Interval | None] = {}
    for column, name in enumerate(swapping.VARIANTS[:-1]):
        table = sums[:, [column, -1]]
        total = table.sum(axis=0)
        shares[name] = None
        if total[1:].sum() > 0:
            ends = bootstrap_interval(table, _ratio) or (None, None)
            shares[name] = Interval(float(total[0] / total[1]), *ends)
    return shares


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _cost(study: Study) -> Cost:
    """Per arm: scans of two dictionaries, and five splices over the sampled windows."""
    arms = len(compared_arms(study))
    tokens = arms * swapped_features(study.config) * WINDOWS * CONTEXT
    return table_cost(study, matchings=2 * arms, encoded=arms * 2 * 16_384, model_tokens=spliced(study, tokens, 5))


TABLE = Table(
    name="swap",
    result=SwapResult,
    build=build,
    runs=needed,
    fields=("arms", "n_seeds", "behaviour_tokens"),
    cost=_cost,
)
