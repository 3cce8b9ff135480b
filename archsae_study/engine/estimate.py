"""What a report will cost, before it starts: what is kept, disk, memory and time, timed on this machine."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import psutil
import torch

from archsae_core.storage import seconds_taken
from archsae_study.engine.costs import Cost, Unit
from archsae_study.engine.plan import Node
from archsae_study.engine.scheduler import local_processes, threads_each
from archsae_study.formatting import markdown_table
from archsae_study.settings.config import Config, ConfigError

NOTEBOOK_SECONDS = 15.0
"""A kernel's start, its imports, the figures."""
UNSHARED = 0.9
"""Time of two runs of one thread each, side by side, as a share of one after the other on two threads; measured."""
LOOK, BUSY = 0.5, 0.2
"""Seconds for which the use of the processor by others is looked at, and the share from which it is said."""
MARGIN = 64 * 2**20
"""Bytes left for notebooks, tables and figures."""


class Stated(NamedTuple):
    """One artefact with what it will cost."""

    node: Node
    cost: Cost
    seconds: float
    """0 where it is kept."""


class Estimate(NamedTuple):
    """All artefacts of a plan, and what the missing ones cost."""

    stages: list[Stated]
    """Every artefact, kept ones included."""
    disk: int
    """Bytes."""
    memory: int
    """Bytes at the peak of one process."""
    parts: dict[str, float]
    """Seconds by kind of stage; runs go side by side where `scheduler` is `local:N`."""
    units: Mapping[Unit, float] = MappingProxyType({})
    """Seconds of one of each kind of work that was timed."""
    busy: float = 0.0
    """Share of the processor that others used right before the timing; 0 where nothing was timed."""

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())

    @property
    def missing(self) -> list[Stated]:
        """What is still to be made."""
        return [stage for stage in self.stages if not stage.node.kept]


def estimate(
    nodes: Sequence[Node], config: Config, *, notebooks: int = 0, known: Mapping[Unit, float] = MappingProxyType({})
) -> Estimate:
    """Cost of what is missing of `nodes`, and of starting `notebooks` kernels. Nothing is written.

    Each kind of work that is missing is timed, half a second each, unless it is `known` from an earlier estimate.
    """
    costs = [Cost() if node.kept else node.cost() for node in nodes]
    needed = dict.fromkeys(unit for cost in costs for count, unit in cost.work if count)
    untimed = needed.keys() - known.keys()
    busy = psutil.cpu_percent(LOOK) / 100 if untimed else 0.0  # this process only waits meanwhile
    units = {unit: known[unit] if unit in known else unit.seconds() for unit in needed}
    share = _share(config)
    stages = []
    for node, cost in zip(nodes, costs, strict=True):
        seconds = sum(count * units[unit] for count, unit in cost.work if count)
        stages.append(Stated(node, cost, seconds * (share if node.kind == "runs" else 1.0)))
    parts = dict.fromkeys((node.kind for node in nodes), 0.0)
    for stage in stages:
        parts[stage.node.kind] += stage.seconds
    if notebooks:
        parts["notebooks"] = notebooks * NOTEBOOK_SECONDS
    memory = psutil.Process().memory_info().rss + max((cost.memory for cost in costs), default=0)
    return Estimate(stages, sum(cost.disk for cost in costs), memory, parts, {**known, **units}, busy)


def _share(config: Config) -> float:
    """Time of runs in several processes over that of runs one after the other with all threads."""
    if local_processes(config.comparison.scheduler or "") is None:
        return 1.0
    each = threads_each(config.comparison.scheduler)
    at_once = min(local_processes(config.comparison.scheduler), max(1, (os.cpu_count() or 1) // each))
    return (UNSHARED if each < torch.get_num_threads() else 1.0) * torch.get_num_threads() / (at_once * each)


def check_room(found: Estimate, root: Path) -> None:
    """Raise ConfigError where the disk of the run folder has less room than is needed."""
    free = _free(root)
    if free < found.disk + MARGIN:
        fix = "free space, set ARCHSAE_RUNS (or --runs) to another disk, or lower tokens or steps"
        needed = (found.disk + MARGIN) / 2**20
        raise ConfigError(f"runs = {root}: about {needed:.0f} MiB are needed and {free / 2**20:.0f} are free: {fix}")


def summary(found: Estimate, root: Path) -> str:
    """One line: stages, disk, memory, time."""
    kept = len(found.stages) - len(found.missing)
    parts = [f"{kept} of {len(found.stages)} stages are kept"]
    parts += [f"the others take about {found.disk / 2**20:.0f} MiB of disk ({_free(root) / 2**20:.0f} free)"]
    parts += [f"{found.memory / 2**20:.0f} MiB of memory ({psutil.virtual_memory().available / 2**20:.0f} available)"]
    said = ", ".join([*parts, f"{duration(found.seconds)} ({times(found)})"])
    if found.busy < BUSY:
        return said
    others = f"other processes used {found.busy:.0%} of the processor while this was timed"
    # measured: threads that sleep while they wait take a hundredth of the time then, and a tenth more where alone
    passive = "" if os.environ.get("OMP_WAIT_POLICY") else "; beside them OMP_WAIT_POLICY=PASSIVE is faster"
    return f"{said}; {others}: without them it takes less, and times vary{passive}"


def times(found: Estimate) -> str:
    """Time of every kind of stage that takes any."""
    return ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in found.parts.items() if seconds) or "nothing"


def table(found: Estimate) -> str:
    """Markdown: every missing stage with its size, peak memory and time, and by kind what the kept ones took.

    That is a sum, also of those that were made side by side.
    """
    kept: dict[str, list[float]] = {}
    for stage in found.stages:
        if stage.node.kept:
            kept.setdefault(stage.node.kind, []).append(seconds_taken(stage.node.folder))
    rows = [
        (f"{len(taken)} of {kind}", "yes", None, None, f"took {duration(sum(taken))}") for kind, taken in kept.items()
    ]
    for stage in found.missing:
        sizes = (f"{size / 2**20:.1f}" for size in (stage.cost.disk, stage.cost.memory))
        rows.append((stage.node.name, "no", *sizes, duration(stage.seconds)))
    return markdown_table(("stage", "kept", "disk, MiB", "memory, MiB", "time"), rows)


def duration(seconds: float) -> str:
    """Seconds in words, with two digits at most."""
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.2g} s"


def _free(root: Path) -> int:
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
