"""Progress of long loops: a bar at a terminal and in JupyterLab, a plain line every half minute elsewhere.

Nothing is shown unless it is asked for: by a call's own `progress=True`, or by `showing()` around a whole program.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

DELAY = 2.0
"""Seconds before a bar appears: what ends sooner needs none."""
LINE_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {rate_fmt}, {remaining} left"

_shown: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def showing(shown: bool = True) -> Iterator[None]:
    """Inside the block, loops that are not told otherwise show their progress, or do not."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def is_showing() -> bool:
    """Whether loops show their progress here unless told otherwise."""
    return _shown.get()


class _Lines:
    """A stream on which every state of a bar is a line of its own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n \x1b[A"):
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(
    name: str, *, total: int | float | None, unit: str, shown: bool | None = None, line: str = LINE, **options: Any
) -> tqdm:
    """A bar that its owner moves on with `update`; `shown` None is as `showing` says.

    `line` is its form where no bar can be drawn.
    """
    options = {"delay": DELAY, "leave": False, "file": sys.stderr} | options
    options |= {"desc": name, "total": total, "unit": unit}
    if not (is_showing() if shown is None else shown):
        return tqdm(**options | {"disable": True})
    if not has_bars():
        every = {"mininterval": LINE_EVERY, "maxinterval": LINE_EVERY, "delay": LINE_EVERY}
        return tqdm(**options | every | {"file": _Lines(sys.stderr), "bar_format": line})
    return tqdm(**options)


def track(
    items: Iterable[T],
    name: str,
    *,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    shown: bool | None = None,
) -> Iterator[T]:
    """`items` one by one, with their progress; `initial` of `total` were done before."""
    if total is None:
        items = list(items)
        total = len(items)
    with progress_bar(name, total=total, unit=unit, shown=shown, initial=initial) as bar:
        for item in items:
            yield item
            bar.update()


def has_bars() -> bool:
    """Whether a bar can be drawn: at a terminal and in a notebook."""
    return in_jupyter() or sys.stderr.isatty()


def in_jupyter() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return shell is not None and hasattr(shell, "kernel")
