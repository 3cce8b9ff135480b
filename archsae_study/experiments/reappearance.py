"""Tables on features across seeds: do those that reappear read better, and are matched ones the same? JSON-able."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.metrics import features, probing, subspaces
from archsae_core.metrics.behaviour import contrast, spliced_sums
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.matching import cosines, match
from archsae_core.metrics.probing import NoPassages
from archsae_core.metrics.reconstruction import bootstrap_interval
from archsae_core.metrics.stability import SHARED
from archsae_core.models.sae import SAE, Codes
from archsae_study.arms import ARMS
from archsae_study.experiments.probing import ProbeData, probe_data
from archsae_study.experiments.stability import arm_runs
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

STABLE = 0.5
"""A feature is stable when it reappears in at least this share of the other seeds."""
GROUP = 128
"""Matched features of each kind at most: those that are ablated together."""
SMALLEST_GROUP = 8
"""Fewer matched features are not compared."""
ABLATION_TOKENS = 3072
"""Held-out tokens for the CE of ablating a group."""
PRINCIPAL_ROWS = 16_384
"""Training activations whose principal components are the control of the subspaces."""


def trained_arms(study: Study) -> list[str]:
    """The arms whose dictionary is learned: frozen ones match by construction."""
    return [arm for arm in study.config.comparison.arms if ARMS[arm].dictionary != "frozen"]


def reappearance(
    atoms: Sequence[Float[Tensor, "n_features d_model"]],
) -> Float[np.ndarray, "n_seeds n_features"]:
    """Share of the other seeds in which a feature's Hungarian partner has a cosine above 0.7, for every seed's own."""
    found = np.zeros((len(atoms), len(atoms[0])))
    for i, j in combinations(range(len(atoms)), 2):
        cosine = cosines(atoms[i], atoms[j])
        pairs = match(cosine)
        same = (cosine[pairs.rows, pairs.cols] > SHARED).numpy()
        found[i, pairs.rows.numpy()] += same
        found[j, pairs.cols.numpy()] += same
    return found / (len(atoms) - 1)


def matched_groups(
    mass: Float[np.ndarray, " n_features"], stable: np.ndarray, usable: np.ndarray, limit: int, seed: int = 0
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
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


def reappearance_table(study: Study) -> dict[str, Any]:
    """Per trained arm: how many features reappear, and stable against unstable ones of equal activation mass."""
    try:
        data = probe_data(study)
    except NoPassages:
        data = None
    components = principal_components(study)
    arms = {arm: _arm(study, arm, data, components) for arm in trained_arms(study)}
    return {"threshold": SHARED, "stable": STABLE, "share": subspaces.SHARE, "arms": arms}


def principal_components(study: Study) -> Float[Tensor, "d_model d_model"]:
    """Principal components of training activations as rows, the largest first."""
    activations = study.train_activations
    rows = activations.gather(torch.as_tensor(activations.kept)[:PRINCIPAL_ROWS]).float()
    return subspaces.leading(rows - study.normalizer.mean)


def _arm(
    study: Study, arm: str, data: tuple[ProbeData, ProbeData] | None, components: Float[Tensor, "d_model d_model"]
) -> dict[str, Any]:
    runs = arm_runs(study, arm)
    sae = study.sae(runs[0])
    atoms = [study.sae(run).atoms().detach() for run in runs]
    rates = torch.from_numpy(reappearance(atoms))
    lost = [study.alive(run) & (seed < STABLE) for run, seed in zip(runs, rates, strict=True)]
    subspace = subspaces.compare([rows[kept] for rows, kept in zip(atoms, lost, strict=True)], components)
    rate, found = rates[0].numpy(), features.scan(sae, study.heldout_activations, _heldout_rows(study, data))
    scores = {"entropy": np.array([np.nan if e is None else e for e in _entropy(study, found)])}
    if data is not None:
        scores["auc"] = probing.single_feature_auc(*((_pooled(part, sae), part.about) for part in data))
    mass = np.add.reduceat(np.append(found.values, 0).astype(float), found.offsets[:-1]) * (np.diff(found.offsets) > 0)
    stable, usable = rate >= STABLE, (np.diff(found.offsets) >= 20) & (mass > 0)
    row = {"label": ARMS[arm].label, "features": int(usable.sum()), "stable": int((stable & usable).sum())}
    row |= {"rate": float(rate[usable].mean()) if usable.any() else None, "subspace": subspace}
    groups = matched_groups(mass, stable, usable, GROUP)
    if len(groups[0]) < SMALLEST_GROUP:
        return row | {"matched": len(groups[0]), "scores": None}
    compared = {name: _difference(values[groups[0]], values[groups[1]]) for name, values in scores.items()}
    return row | {"matched": len(groups[0]), "scores": compared | {"ce": _ablation(study, sae, groups)}}


def _heldout_rows(study: Study, data: tuple[ProbeData, ProbeData] | None) -> Tensor:
    return study.heldout_activations.kept[:16384] if data is None else data[1].about.rows.flatten()


def _entropy(study: Study, found: features.Scan) -> list[float | None]:
    return features.token_entropy(found, study.heldout_activations)


def _pooled(part: ProbeData, sae: SAE) -> Any:
    return probing.pooled_codes(part.scan(sae), part.about)


def _difference(stable: np.ndarray, unstable: np.ndarray) -> dict[str, Any]:
    """Means of both groups, and of the pairs' differences with an interval over pairs."""
    gap = (stable - unstable)[:, None]
    interval = Interval(float(gap.mean()), *(bootstrap_interval(gap, partial(_per_item, len(gap))) or (None, None)))
    return {"stable": float(stable.mean()), "unstable": float(unstable.mean()), "difference": interval._asdict()}


def _per_item(n: int, sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / n


def _ablation(study: Study, sae: SAE, groups: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """CE in nats a token that switching off each group costs over the whole reconstruction, interval over documents."""
    edits = {"whole": sae.forward}
    edits |= {name: partial(without, sae, group) for name, group in zip(("stable", "unstable"), groups, strict=True)}
    tokens, options = study.tokens.heldout, {"max_norm": study.train_activations.threshold}
    sums = spliced_sums(
        study.model, study.config.language_model.layer, tokens, edits, max_tokens=ABLATION_TOKENS, **options
    )
    costs = {name: contrast(sums, f"{name}_ce", "whole_ce").estimate for name in ("stable", "unstable")}
    return costs | {"difference": contrast(sums, "stable_ce", "unstable_ce")._asdict()}


def runs(study: Study) -> list[tuple[Study, Run]]:
    """Every seed's run of the trained arms."""
    return [(study, run) for arm in trained_arms(study) for run in arm_runs(study, arm)]


TABLE = Table(
    name="reappearance",
    result=dict,
    build=reappearance_table,
    runs=runs,
    fields=("n_seeds", "arms", "heldout_tokens"),
)
