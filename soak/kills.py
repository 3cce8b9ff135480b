"""SIGKILL at random points of every stage: the restarted run ends as an uninterrupted one does, and redoes little."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.data.extraction import CHECKPOINT_BATCHES
from archsae_study.settings.config import PRESETS
from soak.processes import (
    Size,
    Undisturbed,
    begin,
    counts,
    differences,
    events,
    finish,
    kill_tree,
    listing,
    open_builds,
    outcome,
    wait_for,
)

CHECKPOINT = PRESETS["smoke"]["checkpoint_every"]


def run(
    folder: Path, peace: Undisturbed, size: Size, kills: int, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of figures, and what is wrong (empty: nothing).

    Each kill comes after a random number of new events (artefact begun or sealed, training step, batch of extraction)
    and a random delay, spread so that all stages are met. One in four hits the parent only, so that its kernel still
    lives when the next run starts.
    """
    generator = random.Random(seed)
    root, log = folder / "killed", folder / "killed.log"
    points: list[Kill] = []
    for number in range(kills):
        # The first stages are short: a third of the kills creeps through them, the others spread over what is left.
        remaining = _remaining(peace.events, events(log)) / (kills - number + 1)
        spacing = 4 if number < kills // 3 else remaining
        point = _kill(root, size, log, max(1, round(generator.uniform(0, 1.8) * spacing)), generator)
        if point is None:
            break
        points.append(point)
    finish(begin(root, size, log))
    problems = [f"{name} differs from the uninterrupted run" for name in differences(outcome(root), peace.outcome)]
    problems += [f"leftover {path}" for path in root.rglob(".*.tmp")]
    if len(points) < kills:
        problems.append(f"only {len(points)} of {kills} kills fell into work")
    row, more = _redone(points, events(log), peace.events)
    shutil.rmtree(root)
    return [row], problems + more


class Kill(NamedTuple):
    """Where a run was hit."""

    stage: str
    """Of the artefact that was being made."""
    event: str
    """What was noted last."""
    open_builds: int
    """Artefacts begun and not finished: one that others wait for, and those others."""


def _kill(root: Path, size: Size, log: Path, new_events: int, generator: random.Random) -> Kill | None:
    """Start, wait for new events, kill; None where the run ended before."""
    before, process = len(events(log)), begin(root, size, log)
    if not wait_for(process, log, before + new_events):
        finish(process)
        return None
    time.sleep(generator.uniform(0, 0.05))
    if generator.random() < 0.75:
        kill_tree(process)
    else:
        process.kill()
        process.communicate()
        time.sleep(2)  # a kernel sees within a second that its parent is gone; what it did until then is counted
    noted = events(log)
    stack = open_builds(noted[before:])
    return Kill(stack[-1].split("/")[0] if stack else "between", noted[-1].split()[0], len(stack))


def _remaining(undisturbed: list[str], noted: list[str]) -> int:
    """Events of the uninterrupted run that belong to artefacts which are not sealed yet."""
    sealed, count = {line.split()[1] for line in noted if line.startswith("seal ")}, 0
    stack: list[str] = []
    for line in undisturbed:
        event, name = line.split()
        stack += [name] * (event == "build")
        count += bool(stack) and stack[-1] not in sealed
        if event == "seal":
            stack.remove(name)
    return count


def _redone(points: list[Kill], noted: list[str], undisturbed: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What was done twice in all, and whether that is more than each kill's last checkpoint."""
    found, expected, kills = counts(noted), counts(undisturbed), len(points)
    limits = {"step": CHECKPOINT * kills, "batch": CHECKPOINT_BATCHES * kills}
    twice = {name: found[name] - expected[name] for name in expected}
    # a seal is noted before the folder has its name: an artefact that is hit in between is opened and sealed again
    limits |= {"build": sum(point.open_builds for point in points) + twice["seal"], "seal": kills}
    problems = [
        f"{twice[name]} × {name} beyond the {expected[name]} needed, {limit} allowed"
        for name, limit in limits.items()
        if not 0 <= twice[name] <= limit
    ]
    stages, last = (Counter(getattr(point, field) for point in points) for field in ("stage", "event"))
    row = {"kills survived": kills}
    row |= {"in stage": listing(stages), "after": listing(last)}
    plural = {"step": "steps", "batch": "batches", "build": "artefacts begun", "seal": "sealed"}
    return row | {f"{plural[name]} again": f"{twice[name]} of {expected[name]}" for name in limits}, problems
