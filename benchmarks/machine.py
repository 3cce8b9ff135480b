"""What this machine can do: its rate of matrix products, its memory's bandwidth, its name."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from archsae_core.kernels.sparse import linear
from archsae_core.storage import environment
from benchmarks.problem import synchronise


def seconds(call: Callable[[], object], device: str = "cpu", *, repeats: int = 7) -> float:
    """Shortest of several calls, after one to warm up: the time without what else the machine does."""
    call()
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def seconds_in_turns(
    calls: Mapping[str, Callable[[], object]], device: str = "cpu", *, rounds: int = 7
) -> dict[str, float]:
    """Shortest time of each call in several rounds of all: a machine that slows down slows them all."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            found[name] = min(found[name], seconds(call, device, repeats=1))
    return found


@torch.no_grad()
def matrix_rate(rows: int, d_in: int, d_out: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOP/s of [rows, d_in] × [d_in, d_out], with the package's own `linear`."""
    x = torch.randn(rows, d_in, device=device).to(dtype)
    weight = torch.randn(d_out, d_in, device=device).to(dtype)
    return 2 * rows * d_in * d_out / seconds(lambda: linear(x, weight), device)


def bandwidth(device: str = "cpu", n_bytes: int = 2**28) -> float:
    """Bytes/s of a copy, read and written ones counted."""
    source = torch.zeros(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / seconds(lambda: target.copy_(source), device)


def about(device: str = "cpu") -> dict[str, object]:
    """The machine and the versions that a result was measured with."""
    found = {"cores": os.cpu_count(), "processor": _processor(), "memory_gib": round(total_memory() / 2**30, 1)}
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"processor": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return found | {"torch": torch.__version__, "commit": environment()["commit"], "threads": torch.get_num_threads()}


def total_memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def check_device(device: str) -> None:
    """Raise SystemExit with the fix where there is no such device."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"--device {device}: no GPU is usable here (torch {torch.__version__}): leave --device out, "
            "or install torch's CUDA build on a machine with an NVIDIA GPU"
        )
