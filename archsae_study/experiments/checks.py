"""Notebook 06: every training run of the report, checked, not those of the sweep alone.

An expectation that does not hold is a flagged result, never an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from archsae_core.models.training import TrainingDiverged
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, Scores, cosines_with_start
from archsae_study.engine.study import Study
from archsae_study.protocol.arms import ARMS

COLLAPSED = 0.5
"""Share of dead features above which a run counts as collapsed."""
UNTRAINED = 0.9999
"""Mean cosine of the atoms with their start above which a run counts as not trained."""


@dataclass(frozen=True)
class Flag:
    """What is wrong with a run."""

    kind: str
    """`failed`, `l0`, `dead`, `r2`, `unmoved` or `constraint`."""
    message: str


@dataclass(frozen=True)
class CheckedRun:
    """One run with its flags."""

    run: str
    flags: list[Flag]


@dataclass(frozen=True)
class ChecksResult:
    """Every run of the report, checked."""

    runs: int
    flagged: list[CheckedRun]


def flags(scores: Scores, k: int, cosine: float | None) -> list[Flag]:
    """What is wrong with one run; empty where nothing is.

    `cosine` is the mean cosine of the atoms with their start, None for a dictionary that is not trained.
    """
    quality, violation = scores.quality, scores.violation
    checks = (
        ("l0", f"L0 is {quality.l0:.2f}, not k = {k}", abs(quality.l0 - k) > 0.01 * k),
        ("dead", f"{quality.dead_share:.0%} of the features are dead", quality.dead_share > COLLAPSED),
        ("r2", f"R² is {quality.r2:.3f}, below that of the mean", quality.r2 < 0),
        ("unmoved", "atoms did not move", cosine is not None and cosine > UNTRAINED),
        ("constraint", f"constraint violated by {violation:g}", violation > 0),
    )
    return [Flag(kind, message) for kind, message, broken in checks if broken]


def check_runs(study: Study, runs: Iterable[Run]) -> ChecksResult:
    """Flags of all runs, each once, in their order; one that diverged is flagged too."""
    found = {study.run_key(run): run for run in runs}
    checked = [CheckedRun(str(run), _flags_of(study, run)) for run in found.values()]
    return ChecksResult(len(found), [one for one in checked if one.flags])


def of_runs(tables: Sequence[Table[Any]]) -> Table[ChecksResult]:
    """The table that checks every run that some tables look at."""

    def runs(study: Study) -> list[Run]:
        return [run for table in tables for run in table.runs(study)]

    def build(study: Study) -> ChecksResult:
        return check_runs(study, runs(study))

    fields = tuple(sorted({field for table in tables for field in table.fields}))
    return Table(name="checks", result=ChecksResult, build=build, runs=runs, fields=fields)


def _flags_of(study: Study, run: Run) -> list[Flag]:
    try:
        folder = study.run_folder(run)
    except TrainingDiverged as error:
        return [Flag("failed", str(error))]
    frozen = ARMS[run.arm].dictionary == "frozen"
    cosine = None if frozen else cosines_with_start(folder, run.steps)[run.steps]
    return flags(study.scores(run), study.of(run).config.dictionary.k, cosine)
