"""Reading safetensors files without losing an interrupt."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor


class TensorFile(NamedTuple):
    """What a safetensors file holds."""

    tensors: dict[str, Tensor]
    """By name, on the CPU; their values are read from disk as they are touched."""
    metadata: dict[str, str]
    """Empty where the file has none."""


def read_tensors(path: str | Path) -> TensorFile:
    """Open a safetensors file. Raises what `safetensors.safe_open` does: SafetensorError or OSError.

    An interrupt that arrives meanwhile is raised after: safetensors asks torch for the shape of a storage, takes an
    interrupt there for an answer that it cannot use, and calls a sound file damaged.
    """
    with _interrupts_held(), safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return TensorFile(tensors, file.metadata() or {})


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep SIGINT until the block ends, then hand it on. Python interrupts the main thread alone."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    arrived: list[Any] = []
    signal.signal(signal.SIGINT, lambda *given: arrived.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        before(*arrived[-1])
