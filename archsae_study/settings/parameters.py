"""The parameters of a notebook: the names in its cell of parameters, whatever their type, and nothing else.

A notebook that is run again from that cell has many names of its own by then, so the cell is looked up in the kernel's
history (`In`, which JupyterLab, VS Code, papermill and IPython all keep) and its names are read. In plain Python and
under nbval there is no history: it has run once, from its start, and every value that is there is a parameter.
"""

import ast
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from archsae_core.config import shown
from archsae_study.settings.config import FIELDS, ConfigError

SHELL = {"In", "Out", "exit", "quit", "open", "get_ipython"}
"""Names that IPython puts into every namespace."""
IN_NAMESPACE = ("%%time", "%%capture", "%%prun")
"""Magics of a whole cell whose Python runs in the notebook's namespace."""
READING = "from_namespace"
"""The call that reads the parameters."""
INJECTED = "# Parameters\n"
"""How papermill's cell begins, which follows the cell of parameters."""


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a notebook's namespace, by name. Raises ConfigError for a name that is no field of `Config`.

    Those are the names that the cell of parameters (the last one run that sets `preset` and more) and papermill's cell
    after it set, and fields that any later cell sets before this is called. A field that is set elsewhere does not
    count, and a warning says so: by a cell above, by an import, by the notebook's last run.
    """
    history = [source for source in namespace.get("In", ()) if source.strip()]
    names = _set_before(history) if history else [name for name in namespace if _is_value(name, namespace[name])]
    found = {name: namespace[name] for name in names if name in namespace}
    found.pop("compute", None)  # of the report, not of the study
    for name in found:
        if name not in FIELDS:
            raise ConfigError(f"unknown parameter {shown(name)}: known are {', '.join(FIELDS)}")
    for name in sorted((FIELDS.keys() - found.keys()) & namespace.keys()):
        if namespace[name] is not None and _is_value(name, namespace[name]):
            fix = "it is set outside of the cell of parameters and not used: set it there"
            warnings.warn(f"{name} = {shown(namespace[name])}: {fix}", stacklevel=3)
    return found


def _is_value(name: str, value: Any) -> bool:
    """Whether a name is neither IPython's, nor private, nor what an import or a definition binds."""
    return not name.startswith("_") and name not in SHELL and not isinstance(value, ModuleType) and not callable(value)


def _set_before(history: Sequence[str]) -> list[str]:
    """Names that count, of the cells run so far, the last of which calls this; a cell that is no Python sets none."""
    history = [*map(_without_magics, history[:-1]), _before_the_call(_without_magics(history[-1]))]
    cells = [list(dict.fromkeys(_names_set(source))) for source in history]
    starts = [i for i, names in enumerate(cells) if "preset" in names and not history[i].startswith(INJECTED)]
    if not starts:
        raise ConfigError(
            "preset: the cell of parameters was not run, or does not set it: run it, then this cell again"
        )
    first = starts[-1]
    if larger := [i for i in starts if len(cells[i]) > 1]:
        first = larger[-1]  # one that sets `preset` alone changes what an earlier one set
    names = list(cells[first])
    for source, later in zip(history[first + 1 :], cells[first + 1 :], strict=True):
        names += [name for name in later if source.startswith(INJECTED) or name in FIELDS]
    return list(dict.fromkeys(names))


def _without_magics(source: str) -> str:
    """A cell without the lines that IPython takes; empty where its first line hands the rest to something else."""
    lines = source.split("\n")
    if lines[0].startswith("%%") and not lines[0].startswith(IN_NAMESPACE):
        return ""
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def _before_the_call(source: str) -> str:
    """What stands in the cell that reads the parameters before the statement that does."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return ""
    kept = itertools.takewhile(lambda one: READING not in (ast.get_source_segment(source, one) or ""), statements)
    return "\n".join(ast.unparse(statement) for statement in kept)


def _names_set(source: str) -> Iterator[str]:
    """Names that the statements of a cell assign, imports and definitions left out."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return
    for statement in statements:
        # names inside functions, classes and comprehensions are theirs
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Expr):
            nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            inner = {
                id(node)
                for part in ast.walk(statement)
                if isinstance(part, ast.comprehension)
                for node in ast.walk(part.target)
            }
            yield from (n.id for n in nodes if isinstance(n.ctx, ast.Store) and id(n) not in inner and n.id[0] != "_")
