"""Notebook 05: features across seeds. Do those that reappear read better, and do the others share a subspace?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.data.splice import Replace
from archsae_core.metrics import features, probing, subspaces
from archsae_core.metrics.behaviour import SplicedSums, contrast, spliced_sums
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.matching import cosines, match
from archsae_core.metrics.probing import NoPassages
from archsae_core.metrics.reconstruction import bootstrap_interval
from archsae_core.metrics.stability import SAME_FEATURE
from archsae_core.models.sae import SAE, Codes
from archsae_core.progress import track
from archsae_study.engine.costs import Cost, seed_pairs, spliced, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments.probing import ProbeData, probe_data
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS

STABLE = 0.5
"""A feature is stable when it reappears in at least this share of the other seeds."""
KINDS = ("stable", "unstable")
Groups = tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
"""As many features of each of `KINDS`."""
GROUP = 128
"""Matched features of each kind at most: those that are ablated together."""
SMALLEST_GROUP = 8
"""Fewer matched features are not compared."""
ABLATION_TOKENS = 3072
"""Held-out tokens for the CE of ablating a group; a third of `behaviour_tokens` where that is less."""
PRINCIPAL_ROWS = 16_384
"""Training activations whose principal components are the control of the subspaces."""


def compared_arms(study: Study) -> list[str]:
    """The arms of the primary contrasts, and TopK from random starts, that the study has."""
    named = dict.fromkeys(arm for one in contrasts.PRIMARY for arm in (one.published[1], one.free, one.ra))
    return [arm for arm in named if arm in study.config.comparison.arms]


def reappearance(
    atoms: Sequence[Float[Tensor, "n_features d_model"]],
) -> Float[np.ndarray, "n_seeds n_features"]:
    """Share of the other seeds in which a feature's Hungarian partner has a cosine above 0.7, for every seed's own."""
    found = np.zeros((len(atoms), len(atoms[0])))
    for i, j in combinations(range(len(atoms)), 2):
        cosine = cosines(atoms[i], atoms[j])
        pairs = match(cosine)
        same = (cosine[pairs.rows, pairs.cols] > SAME_FEATURE).numpy()
        found[i, pairs.rows.numpy()] += same
        found[j, pairs.cols.numpy()] += same
    return found / (len(atoms) - 1)


def matched_groups(
    mass: Float[np.ndarray, " n_features"], stable: np.ndarray, usable: np.ndarray, limit: int, seed: int = 0
) -> Groups:
    """As many stable as unstable features in every bin of activation mass (two to the octave), `limit` at most.

    A rare feature costs nothing to ablate, so kinds may only be compared at equal mass.
    """
    bins = np.floor(2 * np.log2(np.where(usable, mass, 1.0)))
    generator, chosen = np.random.default_rng(seed), ([], [])
    for one in np.unique(bins[usable]):
        sides = [np.flatnonzero(usable & (bins == one) & side) for side in (stable, ~stable)]
        count = min(map(len, sides))
        for side, into in zip(sides, chosen, strict=True):
            into.append(generator.permutation(side)[:count])
    pairs = np.stack([np.concatenate(side) if side else np.zeros(0, int) for side in chosen])
    first, second = pairs[:, generator.permutation(pairs.shape[1])[:limit]]
    return first, second


def without(sae: SAE, group: Int[np.ndarray, " n"], x: Tensor) -> Tensor:
    """Reconstruction of raw activations with a group of features switched off."""
    keep = torch.ones(sae.n_features, device=x.device)
    keep[torch.as_tensor(group)] = 0
    codes = sae.encode(x)
    return sae.decode(Codes(codes.values * keep[codes.indices], codes.indices))


@dataclass(frozen=True)
class Compared:
    """One score of stable and of unstable features of equal activation mass."""

    stable: float
    unstable: float
    difference: Interval


@dataclass(frozen=True)
class ReappearanceRow:
    """One arm."""

    arm: str
    label: str
    features: int
    """Features of seed 0 that fire often enough to judge."""
    stable: int
    """Of these, features that reappear in at least half of the other seeds."""
    rate: float | None
    """Share of the other seeds in which a feature reappears, mean over features."""
    matched: int
    """Stable and unstable features each that are compared."""
    scores: dict[str, Compared]
    """`auc` of the best topic, `entropy` of the top tokens in bits, `ce` of ablating them in nats a token; none where
    too few match."""
    subspace: subspaces.Subspaces | None
    """How much of one seed's unstable atoms lies in the subspace of another's; None where there are too few."""


@dataclass(frozen=True)
class ReappearanceResult:
    """Every compared arm."""

    threshold: float
    """Cosine above which a feature counts as found again."""
    rows: list[ReappearanceRow]

    def of(self, arm: str) -> ReappearanceRow | None:
        """One arm; None where it was not compared."""
        return next((row for row in self.rows if row.arm == arm), None)


def build(study: Study) -> ReappearanceResult:
    """How many features reappear, and stable against unstable ones of equal activation mass."""
    try:
        data = probe_data(study)
    except NoPassages:
        data = None
    components = principal_components(study)
    arms = [arm for arm in compared_arms(study) if len(arm_runs(study.config, arm)) > 1]
    found = [_arm(study, arm, data, components) for arm in track(arms, "reappearance", unit="arm")]
    costs = _ablations(study, {row.arm: groups for row, groups in found if row.scores})
    rows = [replace(row, scores=row.scores | {"ce": costs[row.arm]}) if row.scores else row for row, _ in found]
    return ReappearanceResult(SAME_FEATURE, rows)


def principal_components(study: Study) -> Float[Tensor, "d_model d_model"]:
    """Principal components of training activations as rows, the largest first."""
    activations = study.train_activations
    rows = activations.gather(torch.as_tensor(activations.kept)[:PRINCIPAL_ROWS]).float()
    return subspaces.leading(rows - study.normalizer.mean)


def _arm(
    study: Study, arm: str, data: tuple[ProbeData, ProbeData] | None, components: Float[Tensor, "d_model d_model"]
) -> tuple[ReappearanceRow, Groups]:
    """Everything of an arm but what its groups cost; and these groups."""
    runs = arm_runs(study.config, arm)
    sae = study.sae(runs[0])
    atoms = [study.sae(run).atoms().detach() for run in runs]
    rates = torch.from_numpy(reappearance(atoms))
    lost = [study.alive(run) & (seed < STABLE) for run, seed in zip(runs, rates, strict=True)]
    subspace = subspaces.compare([rows[kept] for rows, kept in zip(atoms, lost, strict=True)], components)
    rate, found = rates[0].numpy(), features.scan(sae, study.heldout_activations, _heldout_rows(study, data))
    scores = {"entropy": np.array([np.nan if e is None else e for e in _entropy(study, found)])}
    if data is not None:
        train, test = data  # `found` holds the codes of the test passages
        pooled = train.pool(sae), (probing.pooled_codes(found, test.about), test.about)
        scores["auc"] = probing.single_feature_auc(*pooled)
    mass = np.add.reduceat(np.append(found.values, 0).astype(float), found.offsets[:-1]) * (np.diff(found.offsets) > 0)
    stable, usable = rate >= STABLE, (np.diff(found.offsets) >= 20) & (mass > 0)
    groups = matched_groups(mass, stable, usable, GROUP)
    compared: dict[str, Compared] = {}
    if len(groups[0]) >= SMALLEST_GROUP:
        compared = {name: _difference(values[groups[0]], values[groups[1]]) for name, values in scores.items()}
    row = ReappearanceRow(
        arm=arm,
        label=ARMS[arm].title,
        features=int(usable.sum()),
        stable=int((stable & usable).sum()),
        rate=float(rate[usable].mean()) if usable.any() else None,
        matched=len(groups[0]),
        scores=compared,
        subspace=subspace,
    )
    return row, groups


def _heldout_rows(study: Study, data: tuple[ProbeData, ProbeData] | None) -> Tensor:
    return study.heldout_activations.kept[:16384] if data is None else data[1].about.rows.flatten()


def _entropy(study: Study, found: features.Scan) -> list[float | None]:
    return features.token_entropy(found, study.heldout_activations)


def _difference(stable: np.ndarray, unstable: np.ndarray) -> Compared:
    """Means of both groups, and of the pairs' differences with an interval over pairs."""
    gap = (stable - unstable)[:, None]
    interval = Interval(float(gap.mean()), *(bootstrap_interval(gap, partial(_per_item, len(gap))) or (None, None)))
    return Compared(float(stable.mean()), float(unstable.mean()), interval)


def _per_item(n: int, sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / n


def _ablations(study: Study, groups: Mapping[str, Groups]) -> dict[str, Compared]:
    """CE in nats a token that switching off each group costs over the whole reconstruction, interval over documents.

    The blocks up to the layer run once for all arms.
    """
    edits: dict[str, Replace] = {}
    for arm, of_arm in groups.items():
        sae = study.sae(arm_runs(study.config, arm)[0])
        edits[f"{arm} whole"] = sae.forward
        edits |= {f"{arm} {kind}": partial(without, sae, group) for kind, group in zip(KINDS, of_arm, strict=True)}
    if not edits:
        return {}
    sums = spliced_sums(
        study.model,
        study.config.language_model.layer,
        study.tokens.heldout,
        edits,
        max_tokens=_ablation_tokens(study),
        max_norm=study.train_activations.threshold,
    )
    return {arm: _ablated(sums, arm) for arm in groups}


def _ablated(sums: SplicedSums, arm: str) -> Compared:
    stable, unstable = (f"{arm} {kind}_ce" for kind in KINDS)
    costs = [contrast(sums, kind, f"{arm} whole_ce").estimate for kind in (stable, unstable)]
    return Compared(*costs, contrast(sums, stable, unstable))


def _ablation_tokens(study: Study) -> int:
    return max(1, min(ABLATION_TOKENS, study.config.comparison.behaviour_tokens // 3))


def needed(study: Study) -> list[Run]:
    """Every seed of the compared arms."""
    return [run for arm in compared_arms(study) for run in arm_runs(study.config, arm)]


def _cost(study: Study) -> Cost:
    """Per arm: a match of every two seeds, a scan of held-out and training tokens, three splices after one pass."""
    arms = len(compared_arms(study))
    return table_cost(
        study,
        matchings=2 * seed_pairs(needed(study)),
        encoded=arms * 3 * PRINCIPAL_ROWS,
        model_tokens=spliced(study, _ablation_tokens(study), 3 * arms + 1),
    )


TABLE = Table(
    name="reappearance",
    result=ReappearanceResult,
    build=build,
    runs=needed,
    fields=("arms", "n_seeds", "heldout_tokens", "behaviour_tokens"),
    cost=_cost,
)
