"""Many runs at once on a Dask cluster: tasks go to its scheduler, results come back through the shared run folder."""

import functools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import get_num_threads, set_num_threads

from archsae_core.models.training import TrainingDiverged
from archsae_core.progress import progress_bar
from archsae_core.storage import Store
from archsae_study.engine.code import require_as_loaded
from archsae_study.engine.runs import Run
from archsae_study.settings.config import Config, ConfigError

if TYPE_CHECKING:
    from distributed import Client, Future

TIMEOUT = 10.0
"""Seconds a scheduler may take to answer before it counts as unreachable."""
LOG = "scheduler.log"
"""File in the folder of runs: one line for each run that is sent, done or failed."""
ONE_ARENA = {"distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1}
"""Workers allocate from one arena. A run is in a thread of its worker, and glibc would give each thread an arena of its
own and return freed memory of it to the system: page faults when it is taken again cost up to a sixth of a step."""


class SchedulerError(ConfigError):
    """A cluster that cannot be used or was lost; the message names `scheduler` and the fix."""


def local_processes(address: str) -> int | None:
    """N of `local:N`; None for the address of any other cluster."""
    return int(address.removeprefix("local:")) if address.startswith("local:") else None


def threads_each(address: str) -> int:
    """Threads of each run: processes of `local:N` share those of this one, workers elsewhere take as many as it has."""
    return max(1, get_num_threads() // (local_processes(address) or 1))


def check(address: str) -> None:
    """Raise SchedulerError where nobody answers at `address`; `local:N` is not started for it."""
    if local_processes(address) is None:
        with _connected(address):
            pass


def train_ahead(study: Any, runs: Iterable[Run]) -> None:
    """Train what is missing of `runs` on the scheduler of a Study, many at once; without a scheduler, do nothing.

    Workers need the shared run folder alone: what a run starts from is made here. Bits are those of this process where
    a run has as many threads (`threads_each`), the same torch and kind of processor. A run that diverged is left to
    `Study.run_folder`, which meets the same error. Raises SchedulerError.
    """
    address = study.config.comparison.scheduler
    places = {study.store.path("runs", study.run_recipe(run)): run for run in runs}
    missing = {path: run for path, run in places.items() if not path.exists()}
    if address is None or not missing:
        return
    tasks = {}
    for path, run in missing.items():
        study.prepare(run)
        own = study.of(run)
        config = own.config.changed(device=own.device.type, scheduler=None)
        given = (type(own), config, str(own.root.resolve()), own.source, run, path.name, threads_each(address))
        tasks[f"{run} ({path.name})"] = given
    require_as_loaded()  # workers of this machine import what is there when they start
    steps = [run.steps for run in missing.values()]
    for name, error in run_all(address, train_for, tasks, study.root / LOG, sizes=steps).items():
        if not isinstance(error, TrainingDiverged):
            fix = "finished runs are kept: mend it and run the same again, or set scheduler to None"
            raise SchedulerError(f"scheduler = {address!r}: {name}: {error}: {fix}") from error


def train_for(kind: type, config: Config, root: str, source: dict[str, Any], run: Run, key: str, threads: int) -> str:
    """What a worker does for `train_ahead`: train one run into the shared folder; returns the run's folder.

    `config` is that of the run itself, so that `Study.of` has nothing left to change; `key` is the name that the run
    has where it was asked for. Raises ConfigError where it has another one here.
    """
    set_num_threads(threads)
    study = kind(config, Path(root))
    study.store = _store(study.store.root)
    study.source = source  # neither text nor model is needed here: all that is made of them is in the run folder
    if not study.store.path("normalizer", study.normalizer_recipe).exists():
        raise ConfigError(f"{socket.gethostname()} does not see {root}: the run folder must be shared")
    if study.run_key(run) != key:
        fix = "set w_dtype to float32 or bfloat16, and install the same version everywhere"
        raise ConfigError(
            f"{socket.gethostname()} would train another run than was asked for: its processor multiplies in another "
            f"arithmetic, or its version of archsae_core differs: {fix}"
        )
    return str(study.run_folder(run))


@functools.cache
def _store(root: Path) -> Store:
    """One for all tasks of a worker: what a run reads, gigabytes of activations, is checked against its hashes once."""
    return Store(root)


def run_all(
    address: str,
    function: Callable[..., Any],
    tasks: Mapping[str, tuple[Any, ...]],
    log: Path,
    *,
    sizes: Sequence[int],
) -> dict[str, BaseException]:
    """Call `function(*arguments)` for every named task on the cluster; return the exceptions of those that failed.

    A task whose worker dies goes to another one, and a worker that joins later takes its share. Progress is appended
    to `log`, and shown as a bar of training steps, `sizes` of the tasks in their order: runs differ too much for their
    number to tell the time that is left. Raises SchedulerError where the cluster cannot be reached or is lost: what
    finished until then is in the run folder.
    """
    failed: dict[str, BaseException] = {}
    finished = 0
    size = dict(zip(tasks, sizes, strict=True))
    title = f"training on {address}, {{}} of {len(tasks)} runs"
    with (
        _connected(address) as client,
        progress_bar(title.format(0), total=sum(sizes), unit="step", unit_scale=True) as bar,
    ):
        _note(log, f"{address}: {len(tasks)} runs for {len(client.nthreads())} workers")
        # The folder is part of the key: the same run for another folder is another task.
        # Workers take them in the given order.
        sent = {
            name: client.submit(function, *given, key=f"{log.parent}: {name}", priority=-place)
            for place, (name, given) in enumerate(tasks.items())
        }
        names = {future: name for name, future in sent.items()}
        for future in _finished(client, set(names), address):
            finished += 1
            bar.set_description_str(title.format(finished), refresh=False)
            bar.update(size[names[future]])
            error = future.exception() if future.status == "error" else None
            if error is not None:
                failed[names[future]] = error
            state = "done" if error is None else f"failed ({type(error).__name__}: {error})"
            _note(log, f"{finished} of {len(tasks)}: {names[future]} {state}")
    return failed


def _finished(client: "Client", pending: "Iterable[Future]", address: str) -> "Iterator[Future]":
    """Futures as they end. A scheduler that is gone cancels them all."""
    from distributed import as_completed

    with client.as_current():
        for future in as_completed(pending, raise_errors=False):
            if future.cancelled() or client.status != "running":
                raise _lost(address)
            yield future


def _lost(address: str) -> SchedulerError:
    fix = "finished runs are kept: start the scheduler, then run the same again, or set scheduler to None"
    return SchedulerError(f"scheduler = {address!r}: the connection was lost; {fix}")


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables of what is started inside the block; None leaves one as it is. All are put back after."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _connected(address: str) -> "Iterator[Client]":
    """A client of the cluster at `address`; processes of `local:N` end with the block. Raises SchedulerError."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        fix = "install it with `pip install 'archsae-core[cluster]'`, or set scheduler to None"
        raise SchedulerError(f"scheduler = {address!r}: dask.distributed is not installed: {fix}") from error
    count = local_processes(address)
    if count is not None:
        # no memory limit: Dask would kill a run that is merely large; one thread: a worker does one run at a time
        options = {
            "threads_per_worker": 1,
            "memory_limit": 0,
            "dashboard_address": ":0",
            "host": "127.0.0.1",
            "silence_logs": ERROR,
        }
        with (
            environment({}),  # Dask leaves what it sets for its processes, such as one thread for all that is started
            dask.config.set(ONE_ARENA),
            LocalCluster(n_workers=count, **options) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    where = {"address": address} if "://" in address else {"scheduler_file": address}
    try:
        client = Client(**where, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError, AssertionError, TypeError, LookupError, RecursionError) as error:
        # the last four where a scheduler file names no address, or is nested too deeply
        fix = "start it (`dask scheduler`), correct the address, or set scheduler to None"
        raise SchedulerError(f"scheduler = {address!r}: nobody answers there ({error}): {fix}") from error
    with client:
        yield client


def _note(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
