"""What the machine's processor and C library do fast, on which the choice of a code path rests."""

import ctypes
import functools
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt."""
L3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
"""Where Linux says how large the last cache is, as in "32768K"."""


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of handing them back to the system.

    A step allocates the same tensors as the one before; page faults on fresh ones cost up to a quarter of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@functools.cache
def fast_bfloat16() -> bool:
    """Does this processor have instructions for bfloat16 products? Without them they are slower than float32's."""
    found = getattr(torch.cpu, "get_capabilities", dict)()  # older torch: not known, so no
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@functools.cache
def cache_bytes() -> int:
    """Size of the processor's last cache; where the system does not say, 32 MiB."""
    try:
        return int(L3.read_text().strip().removesuffix("K")) * 2**10
    except (OSError, ValueError):
        return 2**25
