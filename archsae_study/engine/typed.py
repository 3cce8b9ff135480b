"""Results as JSON and back: dataclasses and named tuples in, the same types out, anything else refused."""

from typing import Any, TypeVar

import cattrs
import numpy as np
from cattrs.cols import is_namedtuple, namedtuple_dict_structure_factory, namedtuple_dict_unstructure_factory

R = TypeVar("R")


class ResultMismatch(ValueError):
    """JSON that does not hold what its type says; the message names every field that is wrong."""


def _converter() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True)

    # by name in the files: a list of numbers would say nothing
    @made.register_structure_hook_factory(is_namedtuple)
    def _(kind: Any, converter: cattrs.Converter) -> Any:
        return namedtuple_dict_structure_factory(kind, converter, forbid_extra_keys=True)

    made.register_unstructure_hook_factory(is_namedtuple, namedtuple_dict_unstructure_factory)
    # cattrs calls the type, and int(0.5) is 0, str(3) is "3"
    for kind, accepted in ((int, (int,)), (float, (float, int)), (str, (str,)), (bool, (bool,))):
        made.register_structure_hook(kind, _checked(kind, accepted))
        made.register_unstructure_hook(kind, kind)  # numpy's numbers too
    made.register_unstructure_hook(np.ndarray, np.ndarray.tolist)
    made.register_unstructure_hook_func(_is_numpy_number, np.generic.item)
    return made


def _is_numpy_number(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, np.generic)


def _checked(kind: type, accepted: tuple[type, ...]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if kind is int and isinstance(value, str) and value.removeprefix("-").isdecimal():
            return int(value)  # the key of a mapping: JSON has no others
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"expected {kind.__name__}, found {value!r:.60}")
        return kind(value)

    return structure


_CONVERTER = _converter()


def to_json(value: Any) -> Any:
    """`value` (dataclasses, named tuples, lists, mappings, numbers, text, None) as what JSON knows."""
    return _CONVERTER.unstructure(value)


def from_json(content: Any, kind: type[R]) -> R:
    """`content` as `kind`. Raises ResultMismatch where a field is missing, unknown or of another type."""
    try:
        return _CONVERTER.structure(content, kind)
    except Exception as error:
        lines = cattrs.transform_error(error, path="result")
        raise ResultMismatch("; ".join(lines)) from error
