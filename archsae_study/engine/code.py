"""Hashes of code: a result's key names the code that makes it, so that no change can show an older result.

Only what is run counts: comments, docstrings and layout do not. Two ways to name code, by what a repetition costs:

- A table or a score is cheap. Its key holds `code_of` the module that builds it and of every module of ours that this
  one imports, so that it is made again after any change, with nothing to remember.
- Activations, normalizer, anchors and training runs take hours. Their keys hold a version (`stages.py`), raised by
  hand, and a test compares their modules with what was recorded. A change that leaves every bit as it was costs
  nothing.

The code that runs is that of the files as they were when this module was imported. What asks for a hash of a file that
was edited since is refused: the result would be kept under the name of code that did not make it.

A table is cheap only where its runs are kept. A change of a module that leaves every result of the study as it was,
such as an input that is refused, is declared in `EQUAL`, with the reason; the module then counts as it was before.
"""

import argparse
import ast
import functools
import hashlib
import json
import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from archsae_core.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]
EQUAL = Path(__file__).with_name("equal_code.json")
"""By module: the hash of its code `now`, the earlier one that it counts `as`, and `because` of what."""
PACKAGES = ("archsae_core", "archsae_study")
PLUMBING = (
    "archsae_core.checks",
    "archsae_core.config",
    "archsae_core.data.transformers_types",
    "archsae_core.progress",
    "archsae_core.storage",
    "archsae_core.tensor_files",
    "archsae_study.commands",
    "archsae_study.engine",
    "archsae_study.live",
    "archsae_study.report",
    "archsae_study.settings",
)
"""Modules and rooms that carry results and determine none: what they pass on is in the keys already."""
LOADED = {
    path: path.read_text("utf-8")
    for name in PACKAGES
    for path in (ROOT / name).rglob("*.py")
    if path.stem.isidentifier() and path.is_file()  # editors leave links and copies beside what they edit
}
"""Sources as they were when this process began."""


def code_of(modules: Iterable[str], without: Collection[str] = ()) -> str:
    """16 hex digits of the code of `modules` and of every module of ours that they import, directly or not.

    `without` and `PLUMBING` are neither read nor followed.
    """
    hashes, waiting = {}, list(modules)
    while waiting:
        module = waiting.pop()
        if module not in hashes and module not in without and not _is_plumbing(module):
            hashes[module] = module_hash(module)
            waiting += imported(module)
    return _digest(f"{module} {hashes[module]}" for module in sorted(hashes))


def _is_plumbing(module: str) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in PLUMBING)


def module_hash(module: str) -> str:
    """16 hex digits of what a module of ours runs, or of what it ran before a change that `EQUAL` declares.

    Raises ModuleNotFoundError where there is none of that name.
    """
    own, equal = _parsed(_existing_file(module))[0], equal_code().get(module)
    return equal["as"] if equal and equal["now"] == own else own


def equal_code() -> dict[str, dict[str, str]]:
    """What `EQUAL` declares."""
    return _of_record(EQUAL.read_text(encoding="utf-8"))


@functools.cache
def _of_record(text: str) -> dict[str, dict[str, str]]:
    return json.loads(text)


def declare_equal(module: str, because: str) -> None:
    """Declare that what changed of a module since the last commit leaves every result of the study as it was.

    Raises ValueError without a reason, where nothing changed, or where the module determines no result.
    """
    before, now = _of_text(_committed(_existing_file(module)))[0], _parsed(_existing_file(module))[0]
    if _is_plumbing(module) or before == now or not because.strip():
        reason = "it determines no result" if _is_plumbing(module) else "its code did not change"
        raise ValueError(f"{module}: {reason if because.strip() else 'say why'}")
    earlier = json.loads(_committed(EQUAL)).get(module, {})
    same = earlier.get("now") == before
    counted, reasons = (earlier["as"], f"{earlier['because']}; {because}") if same else (before, because)
    entry = {"now": now, "as": counted, "because": reasons}
    EQUAL.write_text(json.dumps(equal_code() | {module: entry}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _committed(path: Path) -> str:
    """Content of a file in the last commit."""
    command = ["git", "show", f"HEAD:./{path.relative_to(ROOT).as_posix()}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout


def require_as_loaded() -> None:
    """Raise ConfigError where the code of a source of ours is not what it was when this process began."""
    for path in LOADED:
        _source(path)


def _source(path: Path) -> str:
    text = path.read_text("utf-8") if path.is_file() else ""
    loaded = LOADED.get(path, text)
    if text != loaded and _code_or_text(text) != _code_or_text(loaded):
        fix = "restart the kernel, or run the command again: what is finished is kept"
        raise ConfigError(f"{path} has changed since this process began, which runs what was there: {fix}")
    return text


def _code_or_text(text: str) -> str:
    try:
        return _of_text(text)[0]
    except SyntaxError:  # saved half way
        return text


def item_hash(item: str) -> str:
    """16 hex digits of a module, or of one function, class or method in it, named `module:name` or `module:Class.name`.

    Raises ModuleNotFoundError or LookupError where there is none of that name.
    """
    return _of_item(item, _source(_existing_file(item.partition(":")[0])))


@functools.cache
def _of_item(item: str, text: str) -> str:
    """The same of one source, by its text."""
    module, _, name = item.partition(":")
    node: ast.AST = _tree(text)
    for part in filter(None, name.split(".")):
        inner = [child for child in getattr(node, "body", ()) if getattr(child, "name", None) == part]
        if not inner:
            raise LookupError(f"{item}: {module} defines no {name}")
        node = inner[-1]
    return _digest(_tokens(node))


def imported(module: str) -> tuple[str, ...]:
    """Modules of ours that a module imports, at any place in it."""
    return _parsed(_existing_file(module))[1]


def _existing_file(module: str) -> Path:
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(f"{module}: no module of {' or '.join(PACKAGES)} has this name")
    return path


def _file(module: str) -> Path | None:
    """Source of a module or package of ours; None for any other name."""
    if module.split(".")[0] not in PACKAGES:
        return None
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    return _of_text(_source(path))


@functools.cache
def _of_text(text: str) -> tuple[str, tuple[str, ...]]:
    """Hash and imports of one source, by its text."""
    tree = _tree(text)
    return _digest(_tokens(tree)), tuple(dict.fromkeys(_imports(tree)))


def _tree(text: str) -> ast.Module:
    """Syntax of a source without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or the text under a field."""
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


class _Written(str):
    """A token, among what is still to be turned into tokens."""


def _tokens(tree: ast.AST) -> Iterator[str]:
    """A tree as a flat sequence, the same in every version of Python: `ast.dump` is not."""
    waiting: list[object] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Written):
            yield node
        elif isinstance(node, ast.AST):
            yield f"({type(node).__name__}"
            waiting.append(_Written(")"))
            for name, value in reversed(list(ast.iter_fields(node))):
                if value not in (None, []) and name not in ("ctx", "kind", "type_comment"):
                    waiting += (value, _Written(name))
        elif isinstance(node, list):
            yield "["
            waiting += (_Written("]"), *reversed(node))
        else:
            yield repr(node)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _file(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if _file(name))
            if _file(node.module) and not all(_file(name) for name in inner):
                yield node.module


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m archsae_study.engine.code", description=declare_equal.__doc__)
    parser.add_argument("module")
    parser.add_argument("because")
    arguments = parser.parse_args()
    try:
        declare_equal(arguments.module, arguments.because)
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
