"""`python -m soak [name …]`: break runs on purpose, print what survived; status 1 where something was lost."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak import configurations, corruption, disk, displaced, extremes, gpt2_size, interrupts, kills, memory, together
from soak.processes import PROJECT, table, undisturbed
from soak.studies import tables, whole

MIB = 2**20
Found = tuple[list[dict[str, Any]], list[str]]


def _kills(folder: Path, short: bool) -> Found:
    size = "few" if short else "whole"
    return kills.run(folder, undisturbed(folder / "peace", size), size, 3 if short else 24)


def _together(folder: Path, short: bool) -> Found:
    size = "few" if short else "whole"
    return together.run(folder, undisturbed(folder / "peace", size), size)


def _interrupts(folder: Path, short: bool) -> Found:
    size = "few" if short else "tables"
    return interrupts.run(folder, undisturbed(folder / "peace", size), size)


def _clock(folder: Path, short: bool) -> Found:
    size = "few" if short else "tables"
    return displaced.clock(folder, undisturbed(folder / "peace", size), size)


def _copied(folder: Path, short: bool) -> Found:
    size = "few" if short else "whole"
    return displaced.copied(folder, undisturbed(folder / "peace", size), size)


def _full(folder: Path, short: bool) -> Found:
    size, shares = ("few", (0.05, 0.6)) if short else ("tables", (0.05, 0.15, 0.4, 0.6, 0.8, 0.95))
    return disk.full(folder, undisturbed(folder / "peace", size), size, shares)


def _publishing(folder: Path, short: bool) -> Found:
    (made,) = undisturbed(folder / "peace", "whole").root.glob("smoke-*")
    return disk.publishing(folder, made)


def _read_only(folder: Path, short: bool) -> Found:
    return disk.read_only(folder)


def _corruption(folder: Path, short: bool) -> Found:
    return corruption.run(folder, undisturbed(folder / "peace", "few" if short else "tables"), every=not short)


def _memory(folder: Path, short: bool) -> Found:
    allowed, tokens = (256, 260_000) if short else (384, 600_000)
    return memory.run(folder, allowed=allowed * MIB, tokens=tokens, width=1024)


def _gigabyte(folder: Path, short: bool) -> Found:
    return memory.one_line(folder / "line.txt", 2**24 if short else 2**30)


def _inputs(folder: Path, short: bool) -> Found:
    done = subprocess.run([sys.executable, "tests/bad_inputs.py"], cwd=PROJECT, capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    problems = [done.stderr[-1500:] + done.stdout[-1500:]] if done.returncode else []
    return [{"inputs": done.stdout.strip().splitlines()[-1]}], problems


def _extremes(folder: Path, short: bool) -> Found:
    return extremes.run(folder, extremes.cases()[:: 20 if short else 1])


def _configurations(folder: Path, short: bool) -> Found:
    return configurations.run(folder, tables, 3) if short else configurations.run(folder, whole, 100)


def _gpt2_size(folder: Path, short: bool) -> Found:
    return gpt2_size.run(folder)


EVERYTHING: dict[str, Callable[[Path, bool], Found]] = {
    "kills": _kills,
    "together": _together,
    "interrupts": _interrupts,
    "clock": _clock,
    "copied": _copied,
    "full-disk": _full,
    "full-disk-publishing": _publishing,
    "read-only": _read_only,
    "corruption": _corruption,
    "memory": _memory,
    "gigabyte-line": _gigabyte,
    "inputs": _inputs,
    "extremes": _extremes,
    "configurations": _configurations,
    "gpt2-size": _gpt2_size,
}


def main() -> int:
    """Run what is named, or everything; the number of failures decides the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(EVERYTHING))
    parser.add_argument("--short", action="store_true", help="each part once at its smallest size, as in the tests")
    arguments = parser.parse_args()
    names = arguments.names or list(EVERYTHING)
    if unknown := set(names) - set(EVERYTHING):
        parser.error(f"unknown {', '.join(sorted(unknown))}: known are {', '.join(EVERYTHING)}")
    failed = 0
    for name in names:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            try:
                rows, problems = EVERYTHING[name](Path(folder), arguments.short)
            except disk.CannotMount as error:
                sys.stdout.write(f"{name}: skipped: {error}\n\n")
                continue
        failed += len(problems)
        sys.stdout.write(table(f"{name}, {time.perf_counter() - begin:.0f} s", rows) + "\n")
        sys.stdout.write("".join(f"LOST: {problem}\n" for problem in problems))
        sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
