"""A full disk, a read-only cache and run folder: a clear error, nothing half-written, and the run continues."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archsae_core.storage import MANIFEST, CorruptArtifact, verify
from soak.processes import Undisturbed, differences, finish, outcome, program, start

MIB = 2**20


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes in memory. Raises PermissionError where this user may not mount one."""
    folder.mkdir(parents=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(options, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        raise PermissionError(f"no tmpfs can be mounted here (root is needed): {done.stderr if done else 'no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full(folder: Path, peace: Undisturbed, shares: tuple[float, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    """Run with less and less missing until the run fits; each failure must name the cause and leave no damage."""
    needed = sum(path.stat().st_blocks * 512 for path in peace.root.rglob("*"))
    rows, problems = [], []
    with mounted(folder / "small", max(int(needed * shares[0]), MIB)) as root:
        refused = start(program(root, whole=True))
        message = refused.communicate()[1]
        early = refused.returncode == 2 and "are needed" in message and not list(root.iterdir())
        problems += [] if early else [f"the report did not refuse a small disk before work: {message[-300:]}"]
        rows.append({"room": "report", "kept": 0, "damaged": 0, "clear error": early})
        for share in shares:
            remount(root, f"size={max(int(needed * share), MIB)}")
            process = start(program(root, whole=False))
            message = process.communicate()[1]
            clear = "No space left" in message
            if process.returncode == 0 or not clear:
                problems.append(f"with {share:.0%} of the room: status {process.returncode}: {message[-300:]}")
            sealed = [path.parent for path in root.glob(f"store/*/*/{MANIFEST}")]
            broken = [path for path in sealed if ".partial" not in path.name and not _sound(path)]
            problems += [f"{path} is damaged" for path in broken]
            rows.append({"room": f"{share:.0%}", "kept": len(sealed), "damaged": len(broken), "clear error": clear})
        remount(root, f"size={needed * 3 + 64 * MIB}")
        finish(start(program(root, whole=False)))
        found = differences(outcome(root), peace.outcome)
        problems += [f"after space was freed, {name} differs" for name in found]
        rows.append({"room": "freed", "kept": len(outcome(root)), "damaged": len(found), "clear error": "–"})
    return rows, problems


def _sound(folder: Path) -> bool:
    try:
        verify(folder)
    except CorruptArtifact:
        return False
    return True


CACHE_READER = """
from archsae_core.data import assets
print(assets.text_folder("bbc-news"))
"""


def read_only(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A cache and a run folder that cannot be written: what is complete is used, what is missing is refused by name."""
    rows, problems = [], []
    with mounted(folder / "locked", 128 * MIB) as root:
        remount(root, "ro")
        empty = start([*program(root, whole=True)])
        message, status = empty.communicate()[1], empty.returncode
        clear = status != 0 and "Read-only file system" in message and "Traceback" not in message
        clear = clear and "to folders that can be written" in message
        rows.append(
            {"read-only": "empty run folder", "status": status, "error": message.strip().splitlines()[-1][:160]}
        )
        problems += [] if clear else [f"empty read-only run folder: status {status}: {message[-300:]}"]
        remount(root, "rw")
        cache = Path(os.environ.get("ARCHSAE_CACHE") or Path.home() / ".cache" / "archsae")
        for state in ("complete cache", "empty cache"):
            remount(root, "rw")
            shutil.rmtree(root / "cache", ignore_errors=True)
            (root / "cache").mkdir()
            if state == "complete cache":
                shutil.copytree(cache / "texts", root / "cache" / "texts", ignore=shutil.ignore_patterns("*.lock"))
            remount(root, "ro")
            process = start([sys.executable, "-c", CACHE_READER], ARCHSAE_CACHE=str(root / "cache"))
            message, status = process.communicate()[1], process.returncode
            last = message.strip().splitlines()[-1][:160] if message.strip() else ""
            good = status == 0 if state == "complete cache" else status != 0 and str(root / "cache") in last
            rows.append({"read-only": state, "status": status, "error": last})
            problems += [] if good else [f"{state}: status {status}: {message[-300:]}"]
    return rows, problems
