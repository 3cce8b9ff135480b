"""Values as people give them, in a notebook, through papermill or a shell, as plain ones and absolute paths."""

import numbers
import os
from collections.abc import Sequence, Set
from decimal import Decimal
from pathlib import Path
from typing import Any

from archsae_core.config import ConfigError, require_given, require_path, shown

PATHS = {"text": "text", "model": "model", "other_model": "model", "scheduler": "scheduler"}
"""Parameters that may be paths, and what such a path leads to."""


def plain(name: str, value: Any) -> Any:
    """A value of parameter `name` as None, bool, int, float, str or a list of those.

    Converts paths, numbers of any library (NumPy, torch, Decimal, Fraction), arrays of one dimension, ranges, and sets
    of numbers, in rising order. Raises ConfigError naming the parameter for anything else, mappings above all.
    """
    found = _scalar(name, value)
    if found is not NotImplemented:
        return found
    if hasattr(value, "tolist"):  # an array
        value = value.tolist()
    if isinstance(value, Set) and all(isinstance(item, numbers.Real) for item in value):
        value = sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        items = [_scalar(name, item) for item in value]
        if not any(item is NotImplemented for item in items):
            return items
    kind = type(value).__name__
    fix = "give a number, a text, a path, or a list of numbers or texts"
    raise ConfigError(f"{name} = {shown(value)}: a value of type {kind} cannot be used: {fix}")


def _scalar(name: str, value: Any) -> Any:
    """A plain single value; NotImplemented for what is none."""
    if hasattr(value, "tolist") and getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else NotImplemented
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real | Decimal):
        return NotImplemented
    try:
        return float(value)
    except (ValueError, OverflowError) as error:  # a signalling NaN, a fraction beyond every float
        raise ConfigError(f"{name} = {shown(value)}: is no number that can be used ({error})") from None


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path that stays the same wherever it is used later: `~` expanded, relative to the working directory of now."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def given_path(name: str, given: str | os.PathLike[str]) -> Path:
    """A path given for `name`, as `absolute` makes it. Raises ConfigError for an empty one and one that cannot be."""
    text = os.fspath(given)
    require_given(name, text, "give a path")
    require_path(name, text)
    return absolute(text)


def located(kind: str, value: str) -> str:
    """What names a `text`, `model` or `scheduler`, with an absolute path where it is one; names of the hub stay.

    A path is what leads to a file or folder from the working directory, begins with `/`, `./`, `../` or `~`, or ends as
    a file of text does.
    """
    if value in _names(kind) or "://" in value:
        return value
    folder, colon, subset = value.partition(":") if kind == "text" else (value, "", "")
    if _is_path(kind, value):
        return str(absolute(value))
    return f"{absolute(folder)}{colon}{subset}" if colon and _is_path(kind, folder) else value


def _names(kind: str) -> set[str]:
    """Values that are names, whatever lies in the working directory."""
    # Imported here: it takes seconds, which a mistyped parameter need not wait for.
    from archsae_core.data.assets import EMBEDDED_MODELS, EMBEDDED_TEXTS

    return {"text": {*EMBEDDED_TEXTS, "synthetic"}, "model": {*EMBEDDED_MODELS, "random-gpt2"}}.get(kind, set())


def _is_path(kind: str, value: str) -> bool:
    from archsae_core.data.text_files import SUFFIXES

    if value.startswith(("/", "./", "../", "~")) or value in (".", ".."):
        return True
    here = {"text": os.path.exists, "model": os.path.isdir, "scheduler": os.path.isfile}[kind](value)
    return here or (kind == "text" and Path(value).suffix in SUFFIXES)
