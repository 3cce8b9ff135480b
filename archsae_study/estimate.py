"""What a report will cost, before it starts: stages, what is kept of them, disk, memory and time."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch.utils.benchmark import Timer

from archsae_core.data.language_model import d_model
from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.sae import SAE
from archsae_core.models.training import Trainer
from archsae_study.arms import ARMS
from archsae_study.config import Config, ConfigError
from archsae_study.costs import Stage, report_stages, step_flops
from archsae_study.pages.formatting import markdown_table
from archsae_study.scheduler import local_processes, threads_each
from archsae_study.study import Study

NOTEBOOK_SECONDS = 6.0
"""A kernel's start and its imports, times seven notebooks."""
UNSHARED = 0.9
"""Time of two runs of one thread each, side by side, as a share of one after the other on two threads; measured."""
LARGEST = 4096
"""Features, anchors and tokens a batch of the steps that are timed, at most."""
MARGIN = 64 * 2**20
"""Bytes left for notebooks, tables and figures."""


class Estimate(NamedTuple):
    """Sums over the stages that are still to be made."""

    stages: list[Stage]
    disk: int
    """Bytes."""
    memory: int
    """Bytes at the peak of one process."""
    rates: dict[str, float]
    """Floating-point operations a second of this machine, as it is now, in each kind of stage."""
    parts: dict[str, float]
    """Seconds by kind of stage; runs go side by side where `scheduler` is `local:N`."""

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())


def estimate(study: Study) -> Estimate:
    """Cost of a report of `study`, whose text is read and model loaded for it. Nothing is written."""
    stages = report_stages(study)
    missing = [stage for stage in stages if not stage.kept]
    rates = dict.fromkeys((stage.kind for stage in stages), _rate(study.device))
    parts = dict.fromkeys(rates, 0.0)
    # memory limits training steps, where it is slow
    if any(stage.kind == "runs" for stage in missing):
        rates["runs"] = _training_rate(study)
    for stage in missing:
        parts[stage.kind] += stage.flops / rates[stage.kind]
    parts["runs"] *= _share(study.config)
    parts["notebooks"] = 7 * NOTEBOOK_SECONDS
    memory = psutil.Process().memory_info().rss + max((stage.memory for stage in stages), default=0)
    return Estimate(stages, sum(stage.disk for stage in missing), memory, rates, parts)


def _share(config: Config) -> float:
    """Of the time that training runs one after the other with all threads takes: less where cores go side by side."""
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
    kept = sum(stage.kept for stage in found.stages)
    parts = [f"{kept} of {len(found.stages)} stages are kept"]
    parts += [f"the others take about {found.disk / 2**20:.0f} MiB of disk ({_free(root) / 2**20:.0f} free)"]
    parts += [f"{found.memory / 2**20:.0f} MiB of memory ({psutil.virtual_memory().available / 2**20:.0f} available)"]
    times = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in found.parts.items() if seconds)
    return ", ".join([*parts, f"{duration(found.seconds)} ({times})"])


def table(found: Estimate) -> str:
    """Markdown: every stage with its size, peak memory and time."""
    rows = []
    for stage in found.stages:
        time = None if stage.kept else duration(stage.flops / found.rates[stage.kind])
        sizes = (f"{size / 2**20:.1f}" for size in (stage.disk, stage.memory))
        rows.append((stage.name, "yes" if stage.kept else "no", *sizes, time))
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


def _rate(device: torch.device) -> float:
    """Operations a second of a dense product: median over a while, since a processor that was idle starts slowly."""
    x, weights = torch.ones(1024, 768, device=device), torch.ones(768, 1024, device=device)
    return 2 * 1024 * 768 * 1024 / _seconds("x @ weights", x=x, weights=weights)


def _training_rate(study: Study) -> float:
    """Operations a second, as `step_flops` counts them, of a TopK and an RA-SAE step on random data."""
    config, width, flops, seconds = study.config, d_model(study.model), 0.0, 0.0
    sizes = {name: min(config[name], LARGEST) for name in ("n_features", "n_anchors", "batch_size")}
    config = config.changed(**sizes, k=min(config.dictionary.k, LARGEST), lr=1e-4, w_lr=None)
    for arm in (ARMS["topk-random-own"], ARMS["ra-shared"]):
        generator = torch.Generator().manual_seed(0)
        anchors, x = (
            torch.randn(rows, width, generator=generator)
            for rows in (config.anchors.n_anchors, config.training.batch_size)
        )
        sae = SAE(
            make_dictionary(arm.dictionary, arm.start, anchors, config.dictionary, config.training, generator),
            config.dictionary.k,
            torch.zeros(width),
            1.0,
        ).to(study.device)
        sae.calibrate(x)
        seconds += _seconds("trainer.train_step(x)", trainer=Trainer(sae, config.training), x=x.to(study.device))
        flops += step_flops(config, arm, width)
    return flops / seconds


def _seconds(statement: str, **names: object) -> float:
    """Median time of a statement, a GPU waited for, with all threads."""
    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.5).median
