"""The problem that every package gets: synthetic activations and anchors, the same numbers everywhere."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor


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
    support: int = 64
    """Anchors that an atom mixes at most in the step `ra-sparse`."""
    n_dead: int = 0
    """Features that are dead at every step, and so take part in AuxK (this package only)."""
    aux_k: int = 128
    seeds: int = 1
    """Dictionaries trained at once (this package only); times are per step of one of them."""
    device: str = "cpu"

    @classmethod
    def from_json(cls, text: str) -> "Problem":
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def batches(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        rows = (torch.randn(self.batch, self.d_model, generator=generator) for _ in range(self.steps))
        return [x.to(self.device) for x in rows]

    def anchors(self) -> Tensor:
        points = torch.randn(self.n_anchors, self.d_model, generator=torch.Generator().manual_seed(1))
        return (0.6 * points).to(self.device)


def synchronise(device: str) -> None:
    """Wait for what was queued: a GPU's kernels run on after the call that started them returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_memory(device: str) -> int:
    """Most bytes held so far: of the GPU, or resident ones of this process; 0 where the system does not say."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@torch.no_grad()
def unexplained(x: Tensor, x_hat: Tensor) -> float:
    """Fraction of variance unexplained, the same for every package."""
    return ((x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()).item()


def report(
    problem: Problem,
    run_round: Callable[[], object],
    reconstruct: Callable[[Tensor], Tensor],
    *,
    before: int = 0,
    **about: object,
) -> None:
    """Warm up with one round, time the others, print milliseconds a step as one JSON line on standard output.

    The reconstruction of the first batch has to improve from the first round to the last: a step that does not train
    is not a step. `before` are bytes of memory in use before the model was made.
    """
    x, times = problem.batches()[0], []
    run_round()
    start_fvu = unexplained(x, reconstruct(x))
    for _ in range(problem.rounds):
        synchronise(problem.device)
        start = time.perf_counter()
        run_round()
        synchronise(problem.device)
        times.append((time.perf_counter() - start) / problem.steps / problem.seeds * 1e3)
    end_fvu = unexplained(x, reconstruct(x))
    if not end_fvu < start_fvu:
        raise SystemExit(f"does not train: unexplained variance {start_fvu:.4f} before and {end_fvu:.4f} after")
    line = {"ms": times, "median": statistics.median(times), "fvu": [start_fvu, end_fvu], "torch": torch.__version__}
    line |= {"threads": torch.get_num_threads(), "memory": peak_memory(problem.device) - before} | about
    sys.stdout.write("\n" + json.dumps(line) + "\n")
