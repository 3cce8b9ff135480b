"""Other libraries, each installed apart on first use: their requirements are none of this project's."""

import subprocess
import sys
from pathlib import Path

import pytest

from archsae_core.storage import cache_dir

OVERCOMPLETE = "0.3.0"


def overcomplete_site() -> Path:
    """Folder with overcomplete alone, without its dependencies. Skips the test where it cannot be had."""
    folder = cache_dir() / "peers" / f"overcomplete-{OVERCOMPLETE}"
    if not (folder / "overcomplete").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*command, f"overcomplete=={OVERCOMPLETE}"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"overcomplete cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return folder
