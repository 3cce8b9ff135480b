"""Metadata that people may have edited, read field by field: what is of another kind is refused by its name."""

import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from archsae_core.config import ConfigError, shown

NAMES = {bool: "true or false", int: "a whole number from 0", float: "a number", str: "a text", list: "a list",
         dict: "an object"}  # fmt: skip


def read_fields(content: Any, kinds: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The fields of a JSON object that `kinds` names, as far as they are there.

    A kind is bool, int, float, str, dict, a list, tuple or mapping of those, or a union, None among them. Raises
    ConfigError that begins with `where` and the field, for what is of another kind or no object.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where.rstrip('.: ') or 'metadata'} is {shown(content)}: must be an object with named values"
        )
    for name, kind in kinds.items():
        if name in content and not _is_of(content[name], kind):
            raise ConfigError(f"{where}{name} = {shown(content[name])}: must be {_said(kind)}")
    return {name: content[name] for name in kinds if name in content}


def contradiction(one: Mapping[str, Any], other: Mapping[str, Any], without: Collection[str] = ()) -> str | None:
    """The first value of one object, or of an object in it, that another gives differently; null says nothing."""
    for name in [name for name in one if name in other and name not in without]:
        mine, theirs = one[name], other[name]
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            if found := contradiction(mine, theirs, without):
                return f"{name}.{found}"
        elif theirs is not None and mine != theirs:
            return f"{name} = {shown(mine)}, not {shown(theirs)}"
    return None


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of a kind. Whole numbers are counts and places, so none is below 0."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(_is_of(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_is_of(item, inner[1]) for item in value.values())
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and (kind is float or value >= 0)
    return isinstance(value, kind)


def _said(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return " or ".join(_said(each) for each in inner)
    if origin in (list, tuple, Sequence):
        return f"a list, each entry {_said(inner[0])}"
    if origin in (dict, Mapping):
        return f"an object, each value {_said(inner[1])}"
    return NAMES.get(kind, "null")
