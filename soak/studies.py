"""One small study from its parameters to the last cell of its last notebook, or the error that refuses it."""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from archsae_study.commands.runner import NOTEBOOKS
from archsae_study.engine import costs
from archsae_study.engine.estimate import estimate
from archsae_study.engine.plan import made, plan
from archsae_study.engine.scheduler import environment
from archsae_study.engine.source import PROJECT
from archsae_study.engine.study import Study
from archsae_study.experiments import TABLES
from archsae_study.report import COMPUTE
from archsae_study.settings.config import FIELDS, ConfigError, configure

SMALL = {
    "preset": "smoke", "tokens": 4000, "context": 16, "n_features": 24, "k": 2, "n_anchors": 16, "steps": 4,
    "ablation_steps": 3, "batch_size": 64, "heldout_tokens": 300, "behaviour_tokens": 64, "kmeans_iterations": 2,
    "aux_k": 4, "dead_after": 2, "checkpoint_every": 3,
}  # fmt: skip
"""A study of seconds; whatever is tried is laid over it."""


class Ended(NamedTuple):
    """How a study of some parameters ended."""

    how: str
    """`done`, `refused` before any work by a message that names a parameter, or `failed`."""
    message: str = ""


def until_checked(parameters: Mapping[str, Any], root: Path) -> Study:
    """The study of `SMALL` and some parameters, every input checked and every stage planned and estimated."""
    study = Study(configure(SMALL | dict(parameters)), root)
    study.check()
    with quick_trials():
        estimate(plan(study, TABLES), study.config)
    return study


def tables(parameters: Mapping[str, Any], root: Path) -> None:
    """Every table of a study."""
    study = until_checked(parameters, root)
    for table in TABLES:
        made(study, table)


def whole(parameters: Mapping[str, Any], root: Path) -> None:
    """Every table of a study, then every cell of every notebook."""
    tables(parameters, root)
    with environment({"ARCHSAE_RUNS": str(root), COMPUTE: "1"}):
        for name in NOTEBOOKS:
            run_notebook(name, SMALL | dict(parameters))


def attempt(parameters: Mapping[str, Any], root: Path, work: Callable[[Mapping[str, Any], Path], object]) -> Ended:
    """Do some work and say how it ended. A refusal counts as one where it names a parameter and nothing was written."""
    try:
        work(parameters, root)
    except ConfigError as error:
        if names_a_parameter(str(error)) and not root.exists():
            return Ended("refused", str(error))
        return Ended("failed", f"refused late, or without the name of a parameter: {error}")
    except Exception:
        return Ended("failed", "".join(traceback.format_exc().splitlines(keepends=True)[-8:]))
    return Ended("done")


def names_a_parameter(message: str) -> bool:
    """Whether a refusal says first which parameter it is about."""
    found = re.match(r"(\w+)( = |: )", message)
    return found is not None and found[1] in FIELDS


@contextmanager
def quick_trials() -> Iterator[None]:
    """Time what is estimated shortly: here only that it can be estimated counts."""
    before, costs.TRIAL = costs.TRIAL, 1e-3
    try:
        yield
    finally:
        costs.TRIAL = before


def run_notebook(name: str, parameters: Mapping[str, Any]) -> None:
    """Every cell of a notebook in this process, in its order. Raises RuntimeError with the code of a cell that fails.

    Where runs are kept, and whether committed results count, is said by the environment, as for a kernel.
    """
    matplotlib.use("agg")
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    try:
        for cell in nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type != "code":
                continue
            _run_cell(shell, name, cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                _run_cell(shell, name, "# Parameters\n" + "\n".join(f"{k} = {v!r}" for k, v in parameters.items()))
    finally:
        InteractiveShell.clear_instance()
        matplotlib.pyplot.close("all")


def _run_cell(shell: InteractiveShell, name: str, source: str) -> None:
    with capture_output():
        done = shell.run_cell(source, store_history=True)
    if error := done.error_before_exec or done.error_in_exec:
        raise RuntimeError(f"notebook {name}: {source[:80]!r}: {type(error).__name__}: {error}") from error
