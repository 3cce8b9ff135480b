"""The problem that every package gets: synthetic activations and anchors, the same numbers everywhere."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Problem:
    d_model: int = 768
    n_features: int = 4096
    n_anchors: int = 4096
    k: int = 64
    batch: int = 1024
    steps: int = 10
    """Steps in one timed round."""
    rounds: int = 3
    lr: float = 3e-4

    @classmethod
    def from_json(cls, text: str) -> "Problem":
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def batches(self) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(self.batch, self.d_model, generator=generator) for _ in range(self.steps)]

    def anchors(self) -> torch.Tensor:
        return 0.6 * torch.randn(self.n_anchors, self.d_model, generator=torch.Generator().manual_seed(1))


def report(problem: Problem, run_round: Callable[[], None]) -> None:
    """Warm up with one round, time the others, print milliseconds a step as one JSON line."""
    run_round()
    times = []
    for _ in range(problem.rounds):
        start = time.perf_counter()
        run_round()
        times.append((time.perf_counter() - start) / problem.steps * 1e3)
    sys.stdout.write(json.dumps({"ms": times, "median": statistics.median(times)}) + "\n")
