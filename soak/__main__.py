"""`python -m soak [name …]`: break runs on purpose, print what survived; status 1 where something was lost."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak import configurations, corruption, disk, extremes, gpt2_size, kills, memory, together
from soak.processes import PROJECT, table, undisturbed

MIB = 2**20
Found = tuple[list[dict[str, Any]], list[str]]


def _kills(folder: Path) -> Found:
    return kills.run(folder, undisturbed(folder / "peace", whole=True), 24, whole=True)


def _together(folder: Path) -> Found:
    return together.run(folder, undisturbed(folder / "peace", whole=True), whole=True)


def _full(folder: Path) -> Found:
    return disk.full(folder, undisturbed(folder / "peace", whole=False), (0.15, 0.4, 0.6, 0.8, 0.95))


def _corruption(folder: Path) -> Found:
    return corruption.run(folder, undisturbed(folder / "peace", whole=False), whole=True)


def _memory(folder: Path) -> Found:
    return memory.run(folder, allowed=384 * MIB, tokens=500_000, width=1024)


def _gigabyte(folder: Path) -> Found:
    return memory.one_line(folder / "line.txt", 2**30)


def _inputs(folder: Path) -> Found:
    done = subprocess.run([sys.executable, "tests/bad_inputs.py"], cwd=PROJECT, capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    examples = [sys.executable, "-m", "pytest", "-q", "tests/test_bad_inputs.py", "-k", "accepted"]
    more = subprocess.run([*examples, "--hypothesis-profile=soak"], cwd=PROJECT, capture_output=True, text=True)
    problems = [run.stderr[-1500:] + run.stdout[-1500:] for run in (done, more) if run.returncode]
    return [{"inputs": done.stdout.strip().splitlines()[-1], "200 configs drawn": more.returncode == 0}], problems


EVERYTHING: dict[str, Callable[[Path], Found]] = {
    "kills": _kills,
    "together": _together,
    "full-disk": _full,
    "read-only": disk.read_only,
    "corruption": _corruption,
    "memory": _memory,
    "gigabyte-line": _gigabyte,
    "inputs": _inputs,
    "extremes": extremes.run,
    "configurations": configurations.run,
    "gpt2-size": gpt2_size.run,
}


def main() -> int:
    """Run what is named, or everything; the number of failures decides the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(EVERYTHING))
    names = parser.parse_args().names or list(EVERYTHING)
    if unknown := set(names) - set(EVERYTHING):
        parser.error(f"unknown {', '.join(sorted(unknown))}: known are {', '.join(EVERYTHING)}")
    failed = 0
    for name in names:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            try:
                rows, problems = EVERYTHING[name](Path(folder))
            except PermissionError as error:
                sys.stdout.write(f"{name}: skipped: {error}\n\n")
                continue
        failed += len(problems)
        sys.stdout.write(table(f"{name}, {time.perf_counter() - begin:.0f} s", rows) + "\n")
        sys.stdout.write("".join(f"LOST: {problem}\n" for problem in problems))
        sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
