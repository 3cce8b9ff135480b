"""Notebook 05: controls of the contrasts beside those of the protocol, from readers' objections.

Another learning rate, more anchors than features, anchors that are no data, random rows of W and one shared random
start on raw data. Exploratory: they came after the results of the contrasts.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np

from archsae_core.metrics.intervals import pair_matrix
from archsae_core.metrics.stability import collapse_corrected
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged
from archsae_study.engine.costs import Cost, seed_pairs, table_cost, together
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.checks import ChecksResult, check_runs
from archsae_study.experiments.longer import outcome
from archsae_study.experiments.stability import (
    ArmResult,
    AtStep,
    StabilityResult,
    at_step,
    headline_matrix,
    kept_tokens,
)
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS, CHOSEN
from archsae_study.protocol.contrasts import ArmOutcome, Contrast, Decision
from archsae_study.settings.config import FULL_SIZES

SEEDS = 3
"""Seeds of each side, at most."""
FASTER = 3
"""Learning rate, in multiples of the study's."""
MORE_ANCHORS = 4
"""Anchors, in multiples of the study's."""
CHOSEN_STEP = ("g1", "g3")
"""Contrasts that move W by the chosen step. With the published one most features die, and training takes three times as
long; its rows of W stay at one anchor however many there are."""
RAW: dict[str, Any] = {"frame": "raw"} | dict(CHOSEN["raw"])
"""What takes an arm of the centred frame to raw data."""


@dataclass(frozen=True)
class Side:
    """An arm, and the parameters, by flat name, in which its runs differ from it."""

    arm: str
    changes: dict[str, Any]

    @property
    def frame(self) -> str:
        """`centred` or `raw`."""
        return self.changes.get("frame", ARMS[self.arm].frame)

    @property
    def title(self) -> str:
        """Label of the arm with the frame."""
        return f"{self.frame}: {ARMS[self.arm].label}"


@dataclass(frozen=True)
class Control:
    """Two sides that are compared: the second is what the first is held against."""

    kind: str
    """`rate`, `anchors`, `no_data`, `start` or `random_w`."""
    name: str
    """What is changed, for tables."""
    first: Side
    second: Side
    steps: int
    """Optimiser steps of each run."""
    skipped: str
    """Why it was left out; empty where it was run."""
    contrast: str | None = None
    """Key of the primary contrast that it repeats; None where it is none, so that the rule does not apply."""


@dataclass(frozen=True)
class SideResult:
    """One side at the end of training; lists have one entry a seed."""

    seeds: list[int]
    start: list[list[float]]
    """Headline score of every pair of seeds before the first step."""
    end: AtStep
    collapse_corrected: list[list[float]]
    """Headline score of every pair of seeds once atoms that coincide within a dictionary are merged."""

    def outcome(self, *, merged: bool = False) -> ArmOutcome:
        """What the rule needs; with `merged` the score without copies."""
        found = outcome(self.seeds, self.end)
        return replace(found, stability=np.array(self.collapse_corrected)) if merged else found


@dataclass(frozen=True)
class ControlResult:
    """One control. A side is None where nothing is changed of an arm of the study, whose own table has it."""

    control: Control
    first: SideResult | None
    second: SideResult | None

    def sides(self, study: StabilityResult) -> list[SideResult]:
        """Both sides, the study's own arms among them; none where the control was left out, or the study lacks one."""
        arms, control = study.by_key(), self.control
        given = ((control.first, self.first), (control.second, self.second))
        found = [result or _of_study(arms.get(side.arm)) for side, result in given]
        return [] if control.skipped or None in found else [side for side in found if side]

    def decision(self, study: StabilityResult, *, merged: bool = False) -> Decision | None:
        """The first side less the second, over the seeds that both have, and what the rule would say.

        With `merged` of the scores without copies. None where a side is missing.
        """
        if not (sides := self.sides(study)):
            return None
        control = self.control
        of = {name: side.outcome(merged=merged) for name, side in zip(SIDES, sides, strict=True)}
        named = Contrast(control.kind, control.name, control.first.frame, *SIDES, published=("", ""))
        return contrasts.decide(named, of)


SIDES = ("first", "second")


@dataclass(frozen=True)
class ControlsResult:
    """Every control, and the checks of its runs."""

    controls: list[ControlResult]
    checks: ChecksResult

    def of(self, kind: str, study: StabilityResult) -> list[ControlResult]:
        """Those of one kind that were run, with an interval."""
        found = ((one, one.decision(study)) for one in self.controls if one.control.kind == kind)
        return [one for one, decision in found if decision is not None and decision.gain is not None]


def _of_study(arm: ArmResult | None) -> SideResult | None:
    return arm and SideResult(arm.seeds, arm.trajectory[0].stability, arm.trajectory[-1], arm.collapse_corrected)


def controls(study: Study) -> list[Control]:
    """Every control; one that cannot be run comes with the reason."""
    config = study.config
    left_out = "" if config.comparison.other_settings else "`other_settings` is False"
    rate = {"lr": FASTER * config.training.lr}
    more: dict[str, Any] = {"n_anchors": MORE_ANCHORS * config.anchors.n_anchors}
    if (limit := config.anchors.anchor_tokens) is not None:
        more["anchor_tokens"] = max(limit, FULL_SIZES["anchor_tokens"])
    no_more = left_out or _too_few(study, more)
    alone = partial(_alone, study, left_out)
    return [
        *_repeated(study, "rate", f"learning rate {rate['lr']:g} for both", rate, rate, left_out),
        *_repeated(study, "anchors", f"{more['n_anchors']:,} anchors for RA-SAE", more, {}, no_more, keys=CHOSEN_STEP),
        alone("no_data", "anchors that are no data", ("ra-random-anchors", {}), ("topk-random-own", {})),
        alone("no_data", "anchors that are no data", ("ra-random-anchors", RAW), ("raw-topk-random-own", {})),
        alone("start", "one random start for all", ("topk-random-shared", {}), ("topk-random-own", {})),
        alone("start", "one random start for all", ("topk-random-shared", RAW), ("raw-topk-random-own", {})),
        alone("random_w", "random W, shared anchors", ("ra-random-w", RAW), ("raw-ra-shared", {})),
    ]


def _repeated(
    study: Study,
    kind: str,
    name: str,
    ra: dict[str, Any],
    free: dict[str, Any],
    skipped: str,
    *,
    keys: Sequence[str] = ("g1", "g2", "g3"),
) -> list[Control]:
    """The primary contrasts with parameters of both sides changed."""
    return [
        Control(
            kind,
            f"{one.key}, {name}",
            Side(one.ra, ra),
            Side(one.free, free),
            study.config.training.steps,
            skipped or _not_run(study, one.ra, one.free),
            one.key,
        )
        for one in contrasts.PRIMARY
        if one.key in keys
    ]


def _alone(study: Study, left_out: str, kind: str, name: str, first: tuple, second: tuple) -> Control:
    """A comparison that no primary contrast makes."""
    sides = Side(*first), Side(*second)
    skipped = left_out or _not_run(study, first[0], second[0])
    return Control(kind, f"{sides[0].frame}, {name}", *sides, study.config.training.steps, skipped)


def _not_run(study: Study, *arms: str) -> str:
    missing = [arm for arm in arms if arm not in study.config.comparison.arms]
    return f"{' and '.join(missing)} not among `arms`" if missing else ""


def _too_few(study: Study, sizes: dict[str, Any]) -> str:
    needed, usable = sizes["n_anchors"], study.variant(**sizes).usable_for_anchors()
    return "" if usable >= needed else f"{needed:,} centroids of {usable:,} activations in each part of the documents"


def side_runs(study: Study, control: Control, side: Side) -> list[Run]:
    """The runs of one side; none where the control is left out, or where the side is an arm of the study as it is."""
    if control.skipped or not side.changes:
        return []
    seeds = range(min(SEEDS, study.config.comparison.n_seeds))
    return [Run(side.arm, seed, control.steps, tuple(side.changes.items())) for seed in seeds]


def runs(study: Study) -> list[Run]:
    """Every run of every control, each once."""
    every = (side_runs(study, one, side) for one in controls(study) for side in (one.first, one.second))
    return list(dict.fromkeys(run for of_side in every for run in of_side))


def build(study: Study) -> ControlsResult:
    """Train what is missing, and score the sides of every control; one that two controls share is scored once.

    A control of which a run diverges, as a higher learning rate may, is left out, with the reason.
    """
    needed = runs(study)
    with suppress(TrainingDiverged):
        study.run_folders(needed)
    of_side = cache(partial(_side, study))

    def result(one: Control) -> ControlResult:
        try:
            return ControlResult(
                one, *(of_side(tuple(side_runs(study, one, side))) for side in (one.first, one.second))
            )
        except TrainingDiverged as error:
            return ControlResult(replace(one, skipped=f"a run diverged: {error}"), None, None)

    return ControlsResult([result(one) for one in controls(study)], check_runs(study, needed))


def _side(study: Study, of_arm: tuple[Run, ...]) -> SideResult | None:
    if not of_arm:
        return None
    folders = [study.run_folder(run) for run in of_arm]
    kept = [snapshots(folder, run.steps) for folder, run in zip(folders, of_arm, strict=True)]
    atoms = [found[of_arm[0].steps] for found in kept]
    pairs = combinations(range(len(atoms)), 2)
    corrected = {(i, j): collapse_corrected(atoms[i], atoms[j]).normalised for i, j in pairs}
    return SideResult(
        seeds=[run.seed for run in of_arm],
        start=headline_matrix([found[0] for found in kept]),
        end=at_step(study, of_arm, folders, kept, of_arm[0].steps),
        collapse_corrected=pair_matrix(corrected, len(atoms)).tolist(),
    )


def _cost(study: Study) -> Cost:
    costs = []
    for one in controls(study):
        for side in (one.first, one.second):
            needed = side_runs(study, one, side)
            own = study.variant(**side.changes) if needed else study
            tokens = len(needed) * kept_tokens(study.config)
            costs.append(table_cost(own, matchings=4 * seed_pairs(needed), scored=tokens))
    return together(costs)


TABLE = Table(
    name="controls",
    result=ControlsResult,
    build=build,
    runs=runs,
    fields=("arms", "n_seeds", "other_settings", "behaviour_tokens", "heldout_tokens"),
    cost=_cost,
)
