"""Notebook 05: where atoms that leave their start end. At an anchor after all, or away from every one of them?

The cosine with the start cannot tell: with W spread over the anchors the start is nearly the mean of all anchors, and
an atom that leaves it may do so towards its own anchor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from archsae_core.metrics.matching import centred_cosines, directions
from archsae_core.metrics.stability import cosine_with_start
from archsae_core.models.snapshots import snapshots
from archsae_study.engine.costs import Cost, seed_pairs, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.generality import ON_RAW, SPREAD
from archsae_study.experiments.stability import headline_matrix
from archsae_study.protocol.arms import ARMS

SEEDS = 3
"""Seeds an arm, at most."""
SPREAD_ARM = ON_RAW[0]
"""The archetypal arm of g3, which is trained once more with W spread over the anchors."""


@dataclass(frozen=True)
class Alignment:
    """One arm: mean cosines of its atoms, one number a seed, before and after training.

    Centred cosines are those of unit atoms and unit anchors, each less its dictionary's mean.
    """

    arm: str
    smoothing: float | None
    """Where it is not the arm's own."""
    seeds: list[int]
    cosine_with_start: list[float]
    """Not centred, as the rule has it."""
    centred_with_start: list[float]
    own_anchor_before: list[float]
    """Centred cosine with the anchor that was nearest at step 0."""
    own_anchor: list[float]
    """The same after training."""
    nearest_anchor: list[float]
    """Centred cosine with whichever anchor is nearest after training."""
    stability: list[list[float]]
    """Headline score of every pair of seeds."""
    stability_of_nearest: list[list[float]]
    """The same once every atom is replaced by the anchor that is nearest to it: what anchors alone would score."""

    @property
    def title(self) -> str:
        """The arm, and what differs from it."""
        changed = "" if self.smoothing is None else f", W spread over anchors (smoothing {self.smoothing:g})"
        return ARMS[self.arm].title + changed


@dataclass(frozen=True)
class AlignmentResult:
    """The arms of g3, and the archetypal one with W spread over the anchors."""

    arms: list[Alignment]

    def spread(self) -> Alignment | None:
        """The arm with W spread over the anchors; None where it was not trained."""
        return next((arm for arm in self.arms if arm.smoothing is not None), None)


def runs(study: Study) -> list[Run]:
    """Every run, all of which other tables of notebook 05 train as well."""
    config = study.config
    arms = [(arm, ()) for arm in ON_RAW if arm in config.comparison.arms]
    if config.comparison.other_settings and SPREAD_ARM in config.comparison.arms:
        arms.append((SPREAD_ARM, (("smoothing", SPREAD),)))
    seeds = range(min(SEEDS, config.comparison.n_seeds))
    return [Run(arm, seed, config.training.steps, changes) for arm, changes in arms for seed in seeds]


def build(study: Study) -> AlignmentResult:
    """Atoms of every run against the anchors of its own part of the documents."""
    needed = runs(study)
    study.run_folders(needed)
    return AlignmentResult(
        [
            _alignment(study, [run for run in needed if (run.arm, run.changes) == kind])
            for kind in dict.fromkeys((run.arm, run.changes) for run in needed)
        ]
    )


def _alignment(study: Study, of_arm: Sequence[Run]) -> Alignment:
    first = of_arm[0]
    found, trained, nearest = [], [], []
    for run in of_arm:
        kept = snapshots(study.run_folder(run), run.steps)
        own = study.of(run)
        anchors = own.anchors(own.fold(run))
        start, end = kept[0], kept[run.steps]
        before, after = centred_cosines(start, anchors), centred_cosines(end, anchors)
        own_anchor = before.argmax(dim=1, keepdim=True)
        found.append(
            [
                cosine_with_start(start, end),
                cosine_with_start(directions(start, centred=True), directions(end, centred=True)),
                before.amax(dim=1).mean().item(),
                after.gather(1, own_anchor).mean().item(),
                after.amax(dim=1).mean().item(),
            ]
        )
        trained.append(end)
        nearest.append(anchors[after.argmax(dim=1)])
    return Alignment(
        first.arm,
        dict(first.changes).get("smoothing"),
        [run.seed for run in of_arm],
        *(list(column) for column in zip(*found, strict=True)),
        headline_matrix(trained),
        headline_matrix(nearest),
    )


def _cost(study: Study) -> Cost:
    return table_cost(study, matchings=2 * seed_pairs(runs(study)))


TABLE = Table(
    name="anchor_alignment",
    result=AlignmentResult,
    build=build,
    runs=runs,
    fields=("arms", "n_seeds", "other_settings"),
    cost=_cost,
)
