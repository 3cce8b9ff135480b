"""Notebook 05: primary contrasts in other settings: layer, k, δ = 0, W spread over the anchors, the sizes of `full`, a
second language model."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from archsae_core.data.language_model import blocks
from archsae_core.metrics.intervals import pair_matrix
from archsae_core.metrics.stability import collapse_corrected
from archsae_core.metrics.structure import merge_duplicates
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged
from archsae_study.engine.costs import Cost, seed_pairs, table_cost, together
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.longer import COMPARED, outcome
from archsae_study.experiments.stability import AtStep, at_step, kept_tokens
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import Decision
from archsae_study.settings.config import FULL_SIZES

SEEDS, AT_FULL_SIZE_SEEDS = 3, 4
"""Seeds per arm, at most. The fourth at the sizes of `full` came after three had been seen, as notebook 05 says."""
AT_FULL_SIZE = tuple(arm for one in contrasts.PRIMARY if one.key == "g1" for arm in (one.ra, one.free))
"""The arms of g1; those of g2 and g3, on raw data, have a table of their own (`raw_full_sizes.py`)."""

ON_RAW = tuple(arm for one in contrasts.PRIMARY if one.key == "g3" for arm in (one.ra, one.free))
"""The arms of g3."""
SPREAD, SPREAD_SEEDS = 0.9, 5
"""Smoothing of W in the frame where the hull excludes most directions, and seeds. With the step chosen there atoms stay
at their centroids; spread over the anchors they move, and reconstruct worse."""

ALONG = 0.95
"""Cosine with a direction from which an atom lies along it."""


@dataclass(frozen=True)
class Setting:
    """One setting: what differs from the study's own, or why it was left out."""

    name: str
    changes: dict[str, Any]
    steps: int
    """Optimiser steps of each run."""
    arms: list[str]
    """Keys of `ARMS`, of which those of the study are run."""
    seeds: int
    """At most so many an arm."""
    skipped: str
    """Empty where it was run."""


@dataclass(frozen=True)
class SettingArm:
    """One arm at the end of its training in one setting."""

    arm: str
    seeds: list[int]
    end: AtStep
    collapse_corrected: list[list[float]]
    """Headline score of every pair of seeds once atoms that coincide within a dictionary are merged."""
    distinct: list[float]
    """Share of each seed's atoms that are left then."""
    along_first: list[float]
    """Share of each seed's atoms whose cosine with the first principal direction is beyond `ALONG`, of either sign."""
    first_variance: float
    """Share of the variance of held-out activations along that direction."""


@dataclass(frozen=True)
class SettingResult:
    """The arms of one setting."""

    setting: Setting
    arms: list[SettingArm]

    def decisions(self, *, merged: bool = False) -> list[Decision]:
        """What the rule says of the contrasts whose arms were run; with `merged` of their scores without copies."""
        outcomes = {arm.arm: outcome(arm.seeds, arm.end) for arm in self.arms if len(arm.seeds) > 1}
        if merged:
            corrected = {arm.arm: np.array(arm.collapse_corrected) for arm in self.arms}
            outcomes = {arm: replace(found, stability=corrected[arm]) for arm, found in outcomes.items()}
        return [contrasts.decide(one, outcomes) for one in contrasts.PRIMARY if {one.ra, one.free} <= outcomes.keys()]


@dataclass(frozen=True)
class GeneralityResult:
    """Settings beside the study's own."""

    settings: list[SettingResult]

    def beside(self, other: "GeneralityResult") -> "GeneralityResult":
        """These settings and those of another table, with a second language model last."""
        return GeneralityResult(
            sorted([*self.settings, *other.settings], key=lambda one: "model" in one.setting.changes)
        )


def settings(study: Study) -> list[Setting]:
    """Where else the contrasts are run; a setting that cannot be comes with the reason.

    First the study's own at the same number of steps, so that what differs is the setting and not the length.
    """
    config = study.config
    steps, size_steps = config.comparison.ablation_steps, config.comparison.full_size_steps
    layer, k = config.language_model.layer // 2, config.dictionary.k // 2
    n_blocks = len(blocks(study.model))
    if layer == config.language_model.layer:
        layer = 1
    left_out = "" if config.comparison.other_settings else "`other_settings` is False"
    no_layer = left_out or ("" if layer < n_blocks else f"the model has {n_blocks} block")
    no_k = left_out or ("" if k >= 1 else "half of k = 1 is no number of codes")
    no_hull = left_out or ("" if config.dictionary.delta else "it is the study's own")
    no_full_size = no_full_sizes(study, "full_size_steps")
    sizes, compared = f"{FULL_SIZES['n_features']:,} features, k = {FULL_SIZES['k']}", list(COMPARED)
    return [
        Setting("as in the study", {}, steps, compared, SEEDS, left_out),
        Setting(f"layer {layer}", {"layer": layer}, steps, compared, SEEDS, no_layer),
        Setting(f"k = {k}", {"k": k}, steps, compared, SEEDS, no_k),
        Setting("δ = 0, the hull alone", {"delta": 0.0}, config.training.steps, compared, SEEDS, no_hull),
        Setting(
            f"W spread over anchors (smoothing {SPREAD:g})",
            {"smoothing": SPREAD},
            config.training.steps,
            list(ON_RAW),
            SPREAD_SEEDS,
            left_out,
        ),
        Setting(sizes, dict(FULL_SIZES), size_steps, list(AT_FULL_SIZE), AT_FULL_SIZE_SEEDS, no_full_size),
        _other_model(study),
    ]


def _other_model(study: Study) -> Setting:
    """The second language model, at the study's own sizes and length."""
    config, compared = study.config, list(COMPARED)
    steps, model = config.training.steps, config.comparison.other_model
    if model is None:
        return Setting("another language model", {}, steps, compared, SEEDS, "`other_model` is not set")
    changes = {name: value for name, value in study.of_other_model.items() if value != config[name]}
    name = f"{Path(model).name}, layer {config.comparison.other_model_layer}"
    return Setting(name, changes, steps, compared, SEEDS, "")


def no_full_sizes(study: Study, steps: str) -> str:
    """Why the sizes of `full` are left out, of which the parameter `steps` is the length; empty where they are run."""
    if not study.config[steps]:
        return f"`{steps}` is 0"
    if all(study.config[name] == value for name, value in FULL_SIZES.items()):
        return "they are those of the study"
    needed, usable = FULL_SIZES["n_anchors"], study.variant(**FULL_SIZES).usable_for_anchors()
    return "" if usable >= needed else f"{needed:,} centroids of {usable:,} activations in each part of the documents"


def setting_runs(study: Study, setting: Setting) -> list[Run]:
    """Every run of one setting."""
    config, changes = study.config, tuple(setting.changes.items())
    if setting.skipped:
        return []
    arms = [arm for arm in setting.arms if arm in config.comparison.arms]
    seeds = range(min(setting.seeds, config.comparison.n_seeds))
    return [Run(arm, seed, setting.steps, changes) for arm in arms for seed in seeds]


def runs(study: Study) -> list[Run]:
    """Every run of every setting."""
    return [run for setting in settings(study) for run in setting_runs(study, setting)]


def build(study: Study) -> GeneralityResult:
    """The arms of both contrasts at the end of their training in each setting."""
    return results(study, settings(study))


def results(study: Study, settings: Sequence[Setting]) -> GeneralityResult:
    """The arms of some settings; an arm of which a run diverges is left out, with the reason."""
    with suppress(TrainingDiverged):
        study.run_folders(run for setting in settings for run in setting_runs(study, setting))
    return GeneralityResult([_result(study, setting) for setting in settings])


def _result(study: Study, setting: Setting) -> SettingResult:
    needed, first = setting_runs(study, setting), {}
    arms, diverged = [], []
    for arm in dict.fromkeys(run.arm for run in needed):
        try:
            arms.append(_arm(study, [run for run in needed if run.arm == arm], first))
        except TrainingDiverged as error:
            diverged.append(f"{ARMS[arm].title} diverged: {error}")
    return SettingResult(replace(setting, skipped="; ".join(diverged)) if diverged else setting, arms)


def _arm(study: Study, own: list[Run], first: dict[str, tuple[Tensor, float]]) -> SettingArm:
    """One arm at the end of its runs; `first` holds the first direction of each frame, as far as it is known."""
    arm, folders = own[0].arm, [study.run_folder(run) for run in own]
    kept = [snapshots(folder, run.steps) for folder, run in zip(folders, own, strict=True)]
    end = at_step(study, own, folders, kept, own[0].steps)
    atoms = [found[own[0].steps] for found in kept]
    pairs = {(i, j): collapse_corrected(atoms[i], atoms[j]) for i, j in combinations(range(len(atoms)), 2)}
    merged = pair_matrix({pair: found.normalised for pair, found in pairs.items()}, len(atoms)).tolist()
    distinct = [len(merge_duplicates(found).atoms) / len(found) for found in atoms]
    if (frame := ARMS[arm].frame) not in first:
        first[frame] = _first_direction(study.of(own[0]))
    direction, variance = first[frame]
    cosine = [F.cosine_similarity(found.float(), direction, dim=1).abs() for found in atoms]
    along = [float((found > ALONG).float().mean()) for found in cosine]
    return SettingArm(arm, [run.seed for run in own], end, merged, distinct, along, variance)


def _first_direction(own: Study) -> tuple[Float[Tensor, " d_model"], float]:
    """First principal direction of held-out activations, and the share of their variance along it."""
    batches = own.scored_batches("heldout", kept_tokens(own.config))
    x = torch.cat([own.normalizer.normalize(batch.cpu()) for batch, _ in batches])
    _, values, directions = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    return directions[0], float(values[0] ** 2 / values.square().sum())


def _cost(study: Study) -> Cost:
    return together([setting_cost(study, setting) for setting in settings(study)])


def setting_cost(study: Study, setting: Setting) -> Cost:
    """Work of the scores of one setting."""
    needed = setting_runs(study, setting)
    own = study.variant(**setting.changes) if needed else study
    return table_cost(own, matchings=4 * seed_pairs(needed), scored=len(needed) * kept_tokens(study.config))


TABLE = Table(
    name="generality",
    result=GeneralityResult,
    build=build,
    runs=runs,
    fields=(
        "arms",
        "n_seeds",
        "ablation_steps",
        "other_settings",
        "full_size_steps",
        "other_model",
        "other_model_layer",
        "behaviour_tokens",
    ),
    cost=_cost,
)
