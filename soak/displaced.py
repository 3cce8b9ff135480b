"""Artefacts in another place and at another time: a folder of runs that was copied, a clock that jumps."""

import os
import shutil
from pathlib import Path
from typing import Any

from soak.kills import CHECKPOINT
from soak.processes import Size, Undisturbed, begin, counts, differences, events, finish, kill_tree, outcome, wait_for


def copied(folder: Path, peace: Undisturbed, size: Size) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong: a copy under another path is used as it is, and names its old place nowhere."""
    root, log = folder / "auf einem anderen Gerät" / "runs", folder / "copied.log"
    shutil.copytree(peace.root, root)
    log.touch()
    finish(begin(root, size, log))
    files = [path for path in root.glob("store/**/*") if path.is_file()]
    old = [path for path in files if str(peace.root).encode() in path.read_bytes()]
    again = counts(events(log))
    problems = [f"{path} names the old place" for path in old]
    problems += [f"{name} differs from the original" for name in differences(outcome(root), peace.outcome)]
    problems += [f"made again: {dict(again)}"] if again else []
    return [
        {"files copied": len(files), "with the old path": len(old), "pieces of work again": again.total()}
    ], problems


def clock(folder: Path, peace: Undisturbed, size: Size) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong: the clock jumps all the time, and files are older and younger than they are."""
    root, log = folder / "clock", folder / "clock.log"
    jumping = {"ARCHSAE_SOAK_CLOCK": "1"}
    process = begin(root, size, log, **jumping)
    killed = wait_for(process, log, len(peace.events) // 2)
    kill_tree(process)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        os.utime(path, (4e9, 4e9) if number % 2 else (1e9, 1e9))  # in 2096, in 2001
    finish(begin(root, size, log, **jumping))
    problems = [f"{name} differs from a run alone" for name in differences(outcome(root), peace.outcome)]
    redone = counts(events(log))["step"] - counts(peace.events)["step"]
    problems += [] if killed and 0 <= redone <= CHECKPOINT else [f"{redone} steps were done again"]
    return [{"files with wrong times": len(files), "steps redone": redone}], problems
