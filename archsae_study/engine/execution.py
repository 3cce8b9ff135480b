"""Making what is missing of a plan: in order, with one bar for the whole and one for each stage, each stage timed."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.progress import has_bars, progress_bar
from archsae_core.storage import CorruptArtifact, read_json, write_json
from archsae_study.engine.estimate import Estimate, Stated, duration, estimate
from archsae_study.engine.plan import Table, plan, report_runs
from archsae_study.engine.runs import Run
from archsae_study.engine.scheduler import train_ahead
from archsae_study.engine.study import Study
from archsae_study.engine.typed import ResultMismatch, from_json, to_json
from archsae_study.formatting import markdown_table

TIMING = "timing.json"
OVERALL = "{desc}{postfix}, {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
OVERALL_LINE = "{desc}{postfix}, {percentage:.0f} %, {elapsed} passed, {remaining} left"


class Taken(NamedTuple):
    """What a stage was said to take, and what it took."""

    kind: str
    name: str
    promised: float
    """Seconds."""
    taken: float
    """Seconds."""


INPUTS = ("activations", "prompts", "normalizer", "anchors")


def make_tables(study: Study, tables: Sequence[Table[Any]], found: Estimate, folder: Path, *, name: str) -> None:
    """Make tables and what is missing of what they need; what each stage took is kept in the run folder.

    Which runs a table looks at may depend on the anchors, so these are made first, and the rest is asked for again.
    """
    inputs = [stage for stage in found.missing if stage.node.kind in INPUTS]
    if inputs:
        note(folder, make(study, inputs, (), name=f"{name}, inputs"))
        found = estimate(plan(study, tables), study.config, known=found.units)
    note(folder, make(study, found.missing, report_runs(study, tables), name=name))


def make(study: Study, missing: Sequence[Stated], runs: Iterable[Run], *, name: str) -> list[Taken]:
    """Make everything that is missing; training goes to the config's `scheduler` where there is one.

    The bar counts seconds as they were promised, so that what it says is left follows what the stages before took.
    """
    done: list[Taken] = []
    options = {"bar_format": OVERALL, "line": OVERALL_LINE, "leave": True}
    with progress_bar(name, total=sum(stage.seconds for stage in missing) or 1.0, unit="s", **options) as bar:
        one_by_one = study.config.comparison.scheduler is None
        sent = one_by_one
        for place, stage in enumerate(missing, start=1):
            bar.set_postfix_str(f"stage {place} of {len(missing)}, {stage.node.name}", refresh=has_bars())
            start = time.perf_counter()
            if stage.node.kind == "runs" and not sent:
                train_ahead(study, runs)
                sent = True
                bar.update(sum(other.seconds for other in missing if other.node.kind == "runs"))
            stage.node.make()
            done.append(Taken(stage.node.kind, stage.node.name, stage.seconds, time.perf_counter() - start))
            if one_by_one or stage.node.kind != "runs":
                bar.update(stage.seconds)
    return done


def note(folder: Path, done: Iterable[Taken]) -> None:
    """Add to what is known of a run folder's times; a stage that was made again counts once. Raises CorruptArtifact."""
    known = {(row.kind, row.name): row for row in [*read(folder), *done]}
    write_json(folder / TIMING, to_json(list(known.values())))


def read(folder: Path) -> list[Taken]:
    """Times of the stages that were made for a run folder; empty where none were. Raises CorruptArtifact."""
    path, fix = folder / TIMING, "delete this file, on which no result depends"
    if not path.exists():
        return []
    try:
        return [from_json(row, Taken) for row in read_json(path, fix=fix)]
    except (TypeError, ResultMismatch) as error:
        raise CorruptArtifact(f"{path} does not hold the times of a run ({error}): {fix}") from error


def table(rows: Sequence[Taken], *, each: bool = False) -> str:
    """Markdown: promised and taken, by kind of stage or for `each` stage, and of all."""
    groups: dict[str, list[Taken]] = {}
    for row in rows:
        groups.setdefault(row.kind if not each else f"{row.kind}: {row.name}", []).append(row)
    lines = [_line(name, found) for name, found in (groups | {"all": list(rows)}).items()]
    return markdown_table(("stage", "number", "promised", "taken", "taken / promised"), lines)


def _line(name: str, rows: Sequence[Taken]) -> tuple[object, ...]:
    promised, taken = (sum(getattr(row, field) for row in rows) for field in ("promised", "taken"))
    ratio = f"{taken / promised:.2f}" if promised else None
    return name, len(rows), duration(promised), duration(taken), ratio
