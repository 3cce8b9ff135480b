"""Two runs started in the same folder at once: together they do what one does, and none corrupts the other's."""

from pathlib import Path
from typing import Any

from soak.processes import Undisturbed, counts, differences, events, finish, outcome, program, start


def run(folder: Path, peace: Undisturbed, *, whole: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong."""
    log = folder / "both.log"
    both = [start(program(folder / "both", whole=whole), log) for _ in range(2)]
    messages = [finish(process) for process in both]
    wrong = differences(outcome(folder / "both"), peace.outcome)
    problems = [f"{name} differs from a run alone" for name in wrong]
    alone, together = counts(peace.events), counts(events(log))
    if together != alone:
        problems.append(f"together {dict(together)}, alone {dict(alone)}")
    waited = sum("waiting until it ends" in message for message in messages)
    if whole and waited != 1:
        problems.append(f"{waited} of two reports said that it waits")
    row = {"runs at once": 2, "waited and said so": waited if whole else "–"}
    for event in ("step", "batch", "seal"):
        row[f"{event}s, of one run"] = f"{together[event]}, {alone[event]}"
    return [row], problems
