"""Other libraries, each installed apart: their requirements are none of this project's."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from archsae_core.storage import cache_dir

OVERCOMPLETE = ("overcomplete==0.3.0", "einops==0.8.2")
"""The library and what its SAEs import beyond this project's packages."""
REQUIREMENTS = Path(__file__).with_name("environments")
"""One file an environment: every package in it, with its version."""
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def overcomplete_site() -> Path:
    """Folder with `OVERCOMPLETE` alone. Skips the test where it cannot be had."""
    folder = cache_dir() / "peers" / "-".join(OVERCOMPLETE)
    if not (folder / "einops").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*command, *OVERCOMPLETE], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"overcomplete cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return folder


def python_with(name: str) -> Path:
    """Interpreter of the environment `name`. Skips the test where `make interop` has not made it."""
    folder = _folder(name)
    if not (folder / ".installed").exists():
        pytest.skip(f"the environment {name} is not there: `make interop` makes it, and runs this test")
    return folder / "bin" / "python"


def install(name: str) -> None:
    """Make the environment `name` where it is missing: a minute or two. Raises CalledProcessError where pip cannot."""
    folder = _folder(name)
    if (folder / ".installed").exists():  # touched last, so that an interrupted installation is made anew
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    if name == "saelens":
        subprocess.run([*pip, _torch()], check=True)
    # the file is complete: no package may bring another version of anything
    subprocess.run([*pip, "--no-deps", "--requirement", str(REQUIREMENTS / f"{name}.txt")], check=True)
    (folder / ".installed").touch()


def _folder(name: str) -> Path:
    made_of = _torch() + (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    return cache_dir() / "peers" / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"


def _torch() -> str:
    """The project's own torch, as constraints.txt pins it."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


if __name__ == "__main__":
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        install(file.stem)
