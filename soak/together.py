"""Several programs in one folder at once: together they do what one does, and none corrupts another's work."""

from pathlib import Path
from typing import Any

from soak.kernel import kernel
from soak.processes import Size, Undisturbed, begin, counts, differences, events, finish, outcome, tables_code


def run(folder: Path, peace: Undisturbed, size: Size) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong: two reports, one whose runs go to a Dask cluster, and a kernel."""
    root, log = folder / "shared", folder / "shared.log"
    reports = [begin(root, size, log, **more) for more in ({}, {}, {"ARCHSAE_SCHEDULER": "local:2"})]
    with kernel(log) as notebook:
        error = notebook.end(notebook.start(tables_code(root, size)))
    messages = [finish(process) for process in reports]
    problems = [f"the kernel's cell: {error}"] if error != "" else []
    problems += [f"{name} differs from a run alone" for name in differences(outcome(root), peace.outcome)]
    alone, together = counts(peace.events), counts(events(log))
    if together != alone:
        problems.append(f"together {dict(together)}, alone {dict(alone)}")
    waited = sum("waiting until it ends" in message for message in messages)
    if size == "whole" and waited != 2:
        problems.append(f"{waited} of three reports said that they wait")
    row = {"at once": "2 reports, 1 with Dask, 1 kernel", "waited and said so": waited if size == "whole" else "–"}
    for event, name in (("step", "steps"), ("batch", "batches"), ("seal", "artefacts")):
        row[f"{name}, of one run"] = f"{together[event]}, {alone[event]}"
    return [row], problems
