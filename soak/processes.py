"""Starting, counting, killing and comparing runs of the smoke preset."""

import atexit
import contextlib
import functools
import json
import multiprocessing.context
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from archsae_core.storage import KEPT, MANIFEST, file_sha256, read_json

HOOKS = Path(__file__).parent / "hooks"
PROJECT = Path(__file__).resolve().parents[1]
REPORT = ("-m", "archsae_study", "report", "--preset", "smoke")
FEW = ("standard_sae", "evaluation")
"""Tables that need every kind of artefact, and two of most kinds."""
Size = Literal["whole", "tables", "few"]
"""How much of the smoke report is run: minutes with its notebooks, less for its tables alone, seconds for `FEW`."""


def tables_code(root: Path, size: Size) -> str:
    """Python that makes every table of the report, or `FEW`, in one process and without notebooks."""
    names = FEW if size == "few" else ()
    return f"""
from pathlib import Path
from archsae_study.engine import costs, estimate
from archsae_study.experiments import TABLES
from archsae_study.report import Report
from archsae_study.settings.config import configure
costs.TRIAL, estimate.LOOK = 1e-3, 0.0  # the times that are estimated are shown to nobody here
report = Report(configure({{"preset": "smoke"}}), Path({str(root)!r}), compute=True)
for name in {names!r} or [table.name for table in TABLES]:
    report.table(name)
"""


def program(root: Path, size: Size) -> list[str]:
    """Command line that runs the smoke report, or tables of it."""
    if size == "whole":
        return [sys.executable, *REPORT, "--runs", str(root)]
    return [sys.executable, "-c", tables_code(root, size)]


def environment(log: Path | None = None, **more: str) -> dict[str, str]:
    """Variables of a process that imports the project from its folder; its work is counted in `log`."""
    path = [str(HOOKS)] * (log is not None) + [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    found = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONWARNINGS": "ignore"} | more
    return found | ({"ARCHSAE_SOAK_LOG": str(log)} if log is not None else {})


def start(command: Sequence[str], log: Path | None = None, **more: str) -> subprocess.Popen:
    """Start a command from the project's folder."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(command), cwd=PROJECT, env=environment(log, **more), **pipes)


def _execute(code: str, variables: Mapping[str, str], outputs: tuple[str, str]) -> None:
    """What a fork of `soak.warm` does: the code, in a process of these variables. Python's own were read before."""
    if "soak.warm" not in sys.modules:
        raise RuntimeError("soak.warm was not imported beforehand: work would not be counted")
    from soak.warm import hooks

    warnings.simplefilter("ignore")
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(PROJECT)
    if "ARCHSAE_SOAK_CLOCK" in variables:
        hooks.patch_clock()
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


@functools.cache
def _fork_server() -> multiprocessing.context.ForkServerContext:
    """Starts in the project's folder, from which alone it finds `soak.warm`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["soak.warm"])
    with contextlib.chdir(PROJECT):
        multiprocessing.forkserver.ensure_running()
    return context


class Forked:
    """A process that executes some code, with what `subprocess.Popen` offers of it."""

    def __init__(self, code: str, variables: Mapping[str, str]) -> None:
        self._outputs = [tempfile.NamedTemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 (open while it runs)
        self._texts: list[str] = []
        arguments = (code, dict(variables), tuple(file.name for file in self._outputs))
        self._process = _fork_server().Process(target=_execute, args=arguments)
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill
        atexit.register(self.kill)  # else this process would wait for it where a test failed meanwhile

    @property
    def returncode(self) -> int | None:
        """Status, minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """What it wrote, once it has ended."""
        self._process.join()
        if self._outputs:
            for file in self._outputs:
                file.seek(0)
                self._texts.append(file.read())
                file.close()
            self._outputs = []
        return self._texts[0], self._texts[1]


Process = subprocess.Popen | Forked


def begin(root: Path, size: Size, log: Path | None = None, **more: str) -> Process:
    """Start the smoke report, or tables of it, whose work is counted in `log`. Tables are forked from `soak.warm`."""
    if size == "whole":
        return start(program(root, size), log, **more)
    return Forked(tables_code(root, size), environment(log, **more))


def finish(process: Process) -> str:
    """Wait for a run and return its stderr. Raises RuntimeError where it failed."""
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {errors[-2000:]}")
    return errors


def kill_tree(process: Process) -> None:
    """SIGKILL to a process and all its descendants, kernels included, as when the machine goes down."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.communicate()
    psutil.wait_procs(family, timeout=10)


def events(log: Path) -> list[str]:
    """Lines counted so far."""
    return log.read_text().splitlines() if log.exists() else []


def wait_for(process: Process, log: Path, count: int) -> bool:
    """Wait until `count` events were noted; False where the run ended before."""
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return True
        time.sleep(0.002)
    return False


def outcome(root: Path) -> dict[str, Any]:
    """What a run leaves, without timings: tables, hashes of figures, dictionaries and of every file in the store."""
    found: dict[str, Any] = {}
    for path in sorted(root.glob("smoke-*/results/*.json")):
        found[f"results/{path.name}"] = read_json(path)["table"]
    for path in sorted([*root.glob("smoke-*/figures/*"), *root.glob("smoke-*/*.safetensors")]):
        found[path.name] = file_sha256(path)
    for path in manifests(root):
        found[f"{path.parent.parent.name}/{path.parent.name}"] = read_json(path)["files"]
    return found


def manifests(root: Path) -> list[Path]:
    """Of every artefact in the store, but for what was set aside."""
    return [path for path in sorted(root.glob(f"store/*/*/{MANIFEST}")) if KEPT not in path.parent.name]


class Undisturbed(NamedTuple):
    """A run that nothing happened to."""

    root: Path
    outcome: dict[str, Any]
    events: list[str]


def undisturbed(folder: Path, size: Size) -> Undisturbed:
    """Run the report, or tables of it, in peace, in a process of its own, whose sets have another order than forks'."""
    finish(start(program(folder / "runs", size), folder / "work.log"))
    return Undisturbed(folder / "runs", outcome(folder / "runs"), events(folder / "work.log"))


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names under which two outcomes differ."""
    names = sorted({*found, *expected})
    return [name for name in names if json.dumps(found.get(name)) != json.dumps(expected.get(name))]


def counts(lines: Sequence[str]) -> Counter[str]:
    """How often each kind of event was noted."""
    return Counter(line.split()[0] for line in lines)


def open_builds(lines: Sequence[str]) -> list[str]:
    """Artefacts that were begun and not sealed: one that others wait for, and those others."""
    stack: list[str] = []
    for line in lines:
        event, name = line.split()
        if event == "build":
            stack.append(name)
        elif event == "seal":
            stack.remove(name)
    return stack


def listing(counter: Counter[str]) -> str:
    """Names with their numbers, the most common first."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table under a title."""
    names = list(rows[0])
    lines = [f"{title}\n", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"
