"""A GPU's work as one launch: its kernels are recorded once, as a CUDA graph, and replayed from then on."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from archsae_core.kernels import sparse as kernels

WANTED = "ARCHSAE_CUDA_GRAPHS"
"""Set in the environment: training steps on a GPU are recorded. Not the default, since no GPU has run it yet."""
WARM_UP = 3
"""Calls before the first is recorded, in which libraries and optimisers make what they keep."""

Step = int | Tensor
"""A step's number, counted from 0, on the host or on the device."""
Work = Callable[[Tensor, int, Step], Any]
"""What is done with a batch in a step, which comes twice: as a number, and where recorded as a float64 on the device.

A replay reads and writes the memory of the recording and repeats its numbers of Python: only `step % period` may be
taken from the first.
"""


class Graphs:
    """Calls some work: as it is, or where that is wanted on a GPU, by replays of one recording a step of a period."""

    def __init__(self, place: Tensor, *, period: int) -> None:
        """`place` is any tensor on the device of the work."""
        self.on = bool(os.environ.get(WANTED)) and kernels.on_gpu(place)
        self.device, self.period, self.calls, self.recorded = place.device, period, 0, {}

    def __call__(self, work: Work, x: Tensor, step: int) -> Any:
        """Results of the work; the next replay writes to the same tensors."""
        self.calls += 1
        if not self.on or self.calls <= WARM_UP:
            return work(x, step, step)
        key = (step % self.period, x.shape, x.dtype)
        if key not in self.recorded:
            given = torch.empty_like(x, device=self.device), torch.zeros((), dtype=torch.float64, device=self.device)
            self.recorded[key] = (*given, *record(lambda: work(given[0], step, given[1])))
        held, now, replay, results = self.recorded[key]
        held.copy_(x, non_blocking=True)
        now.fill_(step)
        replay()
        return results

    def forget(self) -> None:
        """Record anew: for when what the work reads or writes has moved in memory."""
        self.calls = 0
        self.recorded.clear()


def record(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """What replays the kernels that `work` launches, and where their results are; nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results
