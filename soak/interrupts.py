"""A kernel interrupted in every kind of stage: the same cell, run again, ends as if nothing had happened."""

from collections import Counter
from pathlib import Path
from typing import Any

from soak.kernel import Kernel, kernel
from soak.processes import (
    Size,
    Undisturbed,
    begin,
    differences,
    events,
    finish,
    listing,
    open_builds,
    outcome,
    tables_code,
)


def run(folder: Path, peace: Undisturbed, size: Size) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong. A stage of milliseconds may be over before the interruption reaches the kernel."""
    root, log = folder / "interrupted", folder / "interrupted.log"
    stages = dict.fromkeys(line.split()[1].split("/")[0] for line in peace.events if line.startswith("build "))
    code, problems, hit = tables_code(root, size), [], Counter[str]()
    with kernel(log) as notebook:
        for stage in stages:
            ended, where = _interrupted(notebook, code, log, stage)
            hit[where] += (interrupted := ended.startswith("KeyboardInterrupt"))
            problems += [] if interrupted or not ended else [f"interrupted in {stage}: {ended}"]
        if (error := notebook.end(notebook.start(code))) != "":
            problems.append(f"after the interruptions: {error}")
        before = len(events(log))
        finish(begin(root, size, log))  # while the kernel still lives, which must hold no lock
        if len(events(log)) > before:
            problems.append(f"another process did {len(events(log)) - before} pieces of work again")
    problems += [f"{name} differs from an uninterrupted run" for name in differences(outcome(root), peace.outcome)]
    row = {"stages": len(stages), "interrupted": hit.total(), "in stage": listing(+hit)}
    return [row], problems


def _interrupted(notebook: Kernel, code: str, log: Path, stage: str) -> tuple[str, str]:
    """How the cell ended that was interrupted when it began an artefact of `stage`, and the stage it was hit in."""
    before, cell = len(events(log)), notebook.start(code)
    while (ended := notebook.end(cell, 0.002)) is None:
        if any(line.startswith(f"build {stage}/") for line in events(log)[before:]):
            notebook.interrupt()
            ended = notebook.end(cell)
            break
    stack = open_builds(events(log)[before:])
    return ended or "", stack[-1].split("/")[0] if stack else "between"
