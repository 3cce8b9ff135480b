"""Headless runs: the notebooks in order through papermill, a sweep over deltas, the explorer of a run."""

import ast
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from traitlets.config import Config as Settings

from archsae_core.interop import open_sae
from archsae_core.storage import REPAIR, cache_dir, mark, switched_on, write_json
from archsae_study.commands.compare import require_used, short_names
from archsae_study.commands.outputs import require_writable
from archsae_study.engine import estimate, execution, scheduler
from archsae_study.engine.code import require_as_loaded
from archsae_study.engine.made import changed_files, note_finished, noted, replace_made
from archsae_study.engine.plan import Table, plan
from archsae_study.engine.source import default_root, has_notebooks
from archsae_study.engine.study import Study
from archsae_study.experiments import TABLES
from archsae_study.explorer import of_study, write_page
from archsae_study.explorer.page import check_page_place
from archsae_study.protocol.arms import ARMS
from archsae_study.report import COMPUTE, PROJECT, RESULTS_ONLY, identity, run_folder
from archsae_study.settings.config import FIELDS, ConfigError, configure, given

NOTEBOOKS = (
    "01_anchors", "02_standard_sae", "03_archetypal_sae", "04_evaluation", "05_stability", "06_delta_ablation",
    "07_features",
)  # fmt: skip
SWEEP_NOTEBOOKS = ("03_archetypal_sae", "04_evaluation")
"""What a sweep repeats for each delta; 06 compares radii over seeds, and 07 needs every arm."""
PAGES = "archsae_study.pages"
SOURCE = Path(__file__).resolve().parents[2]
SOCKET_PATH = 64
"""Bytes of a folder below which sockets have room for their names: systems allow about a hundred in all."""


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the executed copy."""


def run_report(
    parameters: Mapping[str, Any],
    *,
    notebooks: Iterable[str] = NOTEBOOKS,
    root: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Execute notebooks in order and return the run folder, which holds the executed copies, results and figures.

    `parameters` are names of `Config` fields; unknown names and bad values raise ConfigError before anything runs.
    Too little room on the disk raises ConfigError too. Stages that an earlier, perhaps broken, run finished are not
    computed again. Raises NotebookFailed.
    """
    notebooks = tuple(notebooks)
    study, found = planned(parameters, root, notebooks=notebooks)
    config, folder = study.config, run_folder(study.config, root)
    for line in study.text_notes():
        say(line)
    say(estimate.summary(found, root or default_root()))
    estimate.check_room(found, root or default_root())
    mark(folder, "run")
    # where a run was computed is no part of the notebook
    names = {name for name, value in parameters.items() if value is not None} - {"preset", "scheduler"}
    cell = given(config, ("preset", *sorted(names)))
    environment = {"ARCHSAE_RUNS": str(folder.parent), "ARCHSAE_CACHE": str(cache_dir())}
    environment |= {"ARCHSAE_SCHEDULER": config.comparison.scheduler or "", COMPUTE: "1"}
    # kernels import what this process did, and not another copy that is installed
    environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _alone(folder, say), scheduler.environment(environment):
        write_json(folder / "config.json", identity(config))
        execution.make_tables(study, tables_of(notebooks), found, folder, name="report")
        for place, name in enumerate(notebooks, start=1):
            study.require_same_inputs()
            require_as_loaded()
            start = time.perf_counter()
            execute(name, folder / f"{name}.ipynb", cell)
            taken = time.perf_counter() - start
            execution.note(folder, [execution.Taken("notebooks", name, estimate.NOTEBOOK_SECONDS, taken)])
            say(f"notebook {place} of {len(notebooks)}: {name} done in {taken:.0f} s")
    return folder


def run_explorer(
    parameters: Mapping[str, Any],
    arms: Sequence[str] | None,
    *,
    saes: Sequence[str | Path] = (),
    k: int | None = None,
    root: Path | None = None,
    say: Callable[[str], None],
) -> Path:
    """Write the feature explorer of a run into its folder; returns its `index.html`. Raises ConfigError.

    `arms` None are the free and the archetypal one of the run's frame. `saes` are other SAEs of the same layer, as
    `open_sae` takes them with `k`, shown beside the run's own.
    What a report of the same parameters has computed is used; what is missing is computed first.
    """
    config = configure(parameters)
    study, folder = Study(config, root, progress=True), run_folder(config, root)
    guests = dict(zip(short_names(saes), (open_sae(path, k=k) for path in saes), strict=True))
    require_used(k, guests.values())
    for name, sae in guests.items():
        if sae.about.layer is None and not sae.about.reads_elsewhere:
            say(f"{name} does not say its layer: it is shown as of layer {config['layer']}")
    for arm in (arm for arm in arms or () if arm in ARMS):
        study.require_followed(arm, parameters)
    require_writable("runs", study.root, study.root)
    check_page_place(folder / "explorer")
    _require_unchanged(path for path in changed_files(folder) if path.is_relative_to(folder / "explorer"))
    study.check()
    mark(folder, "run")
    with _alone(folder, say), scheduler.environment({"ARCHSAE_SCHEDULER": config.comparison.scheduler or ""}):
        write_json(folder / "config.json", identity(config))
        explorer = of_study(study, arms=arms, saes=guests, progress=True)
        return write_page(explorer, folder / "explorer", progress=True, before=partial(note_finished, folder))


def tables_of(notebooks: Iterable[str]) -> list[Table[Any]]:
    """Tables that some of the notebooks ask for, in a cell or in a page of theirs: made before the first one runs."""
    named = set().union(*(_asked_for(_code(name)) for name in notebooks))
    return [table for table in TABLES if table.name in named]


def _code(name: str) -> str:
    # as JSON: nbformat takes seconds to import, which a dry run need not wait for
    cells = json.loads((PROJECT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(source for source in sources if not source.startswith("%%"))


def _asked_for(code: str) -> set[str]:
    """Names in `….table("name")`, in some code and in the pages that it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Attribute(attr="table"), args=[ast.Constant(value=str(name)), *_]):
                found.add(name)
            case ast.ImportFrom(module=str(module)) if module.startswith(PAGES):
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
                places = (SOURCE.joinpath(*name.split(".")).with_suffix(".py") for name in names)
                found |= set().union(*(_asked_for(path.read_text("utf-8")) for path in places if path.is_file()))
    return found


def planned(
    parameters: Mapping[str, Any], root: Path | None = None, *, notebooks: Iterable[str] = NOTEBOOKS
) -> tuple[Study, estimate.Estimate]:
    """Check every input of a report and its place, and estimate its cost; nothing is left there.

    Raises ConfigError, and CorruptArtifact for a file of the run folder that cannot be read.
    """
    config, notebooks = configure(parameters), tuple(notebooks)
    if switched_on(RESULTS_ONLY):
        raise ConfigError(f"{RESULTS_ONLY} is set, and a report computes: unset it")
    require_writable("runs", root or default_root(), root or default_root())
    _check_run_folder(run_folder(config, root))
    if not has_notebooks():
        fix = "clone the project and install it with `pip install -e .`, or use `make report` there"
        raise ConfigError(f"there are no notebooks in {PROJECT}, since the package was installed without them: {fix}")
    if config.comparison.scheduler is not None:
        scheduler.check(config.comparison.scheduler)
    study = Study(config, root)
    study.check()
    nodes = plan(study, tables_of(notebooks))
    return study, estimate.estimate(nodes, config, notebooks=len(notebooks))


def _require_unchanged(changed: Iterable[Path]) -> None:
    if (path := min(changed, default=None)) and not switched_on(REPAIR):
        raise ConfigError(f"{path} was changed since the report wrote it and would be replaced: move it elsewhere")


def _check_run_folder(folder: Path) -> None:
    """Raise ConfigError where a report would replace what someone has changed, CorruptArtifact for damaged times."""
    _require_unchanged(path for path in changed_files(folder) if not path.is_relative_to(folder / "explorer"))
    names = [f"{name}.ipynb" for name in NOTEBOOKS] + [f"results/{table.file_name}" for table in TABLES]
    recorded = {name for name, _ in noted(folder)}
    if foreign := [name for name in names if os.path.lexists(folder / name) and name not in recorded]:
        raise ConfigError(f"{folder / foreign[0]} is of no report and would be replaced: move it elsewhere")
    execution.read(folder)


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other report runs in the folder, then keep others waiting until the block ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another report runs in {folder}: waiting until it ends")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _unset(notebook: Path) -> dict[str, None]:
    """None for every parameter that a notebook sets: the run that was published last may have set what this one does
    not."""
    import papermill  # takes seconds, which a command that runs no notebook need not wait for

    listed = papermill.inspect_notebook(str(notebook))
    return {name: None for name, entry in listed.items() if name in FIELDS and entry["default"] != "None"}


@contextmanager
def _kernel_settings() -> Iterator[Settings]:
    """A kernel is spoken to through sockets that only its user can open, in a folder of its own: left to itself, it
    puts them beside the notebook, where kernels of two reports take each other's. It is a kernel of this environment,
    whatever others of the same name its user has."""
    usual = tempfile.gettempdir()
    place = usual if len(os.fsencode(usual)) < SOCKET_PATH else "/tmp"
    own_first = scheduler.environment({"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1"})
    with tempfile.TemporaryDirectory(prefix="archsae-", dir=place) as own, own_first:
        yield Settings({"KernelManager": {"transport": "ipc", "ip": f"{own}/kernel"}})


def execute(name: str, output: Path, parameters: Mapping[str, Any]) -> None:
    """Run one notebook with papermill into `output`, which appears when it is complete. Raises NotebookFailed."""
    import papermill  # as above

    logging.getLogger("papermill").setLevel(logging.ERROR)
    source = PROJECT / "notebooks" / f"{name}.ipynb"
    options = {"cwd": str(source.parent), "progress_bar": False, "kernel_name": "python3"}
    unfinished = output.with_suffix(".partial.ipynb")
    try:
        with _kernel_settings() as settings:
            options["config"] = settings
            papermill.execute_notebook(str(source), str(unfinished), _unset(source) | dict(parameters), **options)
    except papermill.PapermillExecutionError as error:
        raise NotebookFailed(f"{name}: {error.ename}: {error.evalue} (see the executed copy {unfinished})") from None
    replace_made(output.parent, unfinished, output)


def run_sweep(parameters: Mapping[str, Any], deltas: Iterable[float], **options: Any) -> list[Path]:
    """The notebooks that depend on delta, once for each; everything else is shared through the store.

    Raises ConfigError for no radius, for one that is given twice, and for a `delta` among the parameters.
    """
    deltas = tuple(deltas)
    if parameters.get("delta") is not None:
        raise ConfigError(f"delta = {parameters['delta']!r}: a sweep sets it: leave it out, or add it to the deltas")
    configure(dict(parameters) | {"deltas": deltas})
    runs = [dict(parameters) | {"delta": delta} for delta in deltas]
    for run in runs:
        configure(run)
    return [run_report(run, notebooks=SWEEP_NOTEBOOKS, **options) for run in runs]
