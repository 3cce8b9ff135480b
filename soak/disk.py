"""A disk that is full, or fills, or is read-only: a clear error, nothing half-written, and the run continues."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from archsae_core.storage import MANIFEST, PARTIAL, CorruptArtifact, verify
from archsae_study.engine.made import note_made
from soak.processes import PROJECT, Size, Undisturbed, begin, differences, finish, outcome, program, start, wait_for

MIB = 2**20


class CannotMount(RuntimeError):
    """This user may not mount a file system."""


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes in memory. Raises CannotMount where this user may not mount one."""
    folder.mkdir(parents=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(options, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        raise CannotMount(f"no tmpfs can be mounted here (root is needed): {done.stderr if done else 'no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full(
    folder: Path, peace: Undisturbed, size: Size, shares: tuple[float, ...]
) -> tuple[list[dict[str, Any]], list[str]]:
    """A disk that is too small is refused beforehand; one that fills during the work is named, and nothing is damaged.

    Another program takes what is left of the disk once each of `shares` of the work is done.
    """
    needed = sum(path.stat().st_blocks * 512 for path in peace.root.rglob("*"))
    log, rows, problems = folder / "full.log", [], []
    with mounted(folder / "small", needed // 2) as root:
        for name, which, status in (("report", "whole", 2), ("tables", size, 1)):
            refused = begin(root, which)
            message = refused.communicate()[1]
            early = refused.returncode == status and f"runs = {root}" in message and "are needed" in message
            early = early and not list(root.iterdir())
            problems += [] if early else [f"a small disk was not refused before work: {message[-300:]}"]
            rows.append({"disk fills": f"before, {name}", "kept": 0, "damaged": 0, "clear error": early})
        remount(root, f"size={3 * needed + 256 * MIB}")
        for share in shares:
            status, message = _filled(root, size, log, round(share * len(peace.events)))
            # where it fills between two tables, the next one is refused before it begins
            clear = status != 0 and ("No space left" in message or "free: free space, set ARCHSAE_RUNS" in message)
            problems += [] if clear else [f"full after {share:.0%} of the work: status {status}: {message[-300:]}"]
            sealed = [path.parent for path in root.glob(f"store/*/*/{MANIFEST}") if PARTIAL not in path.parent.name]
            broken = [path for path in sealed if not _sound(path)]
            problems += [f"{path} is damaged" for path in broken]
            row = {"disk fills": f"after {share:.0%}", "kept": len(sealed), "damaged": len(broken)}
            rows.append(row | {"clear error": clear})
        finish(begin(root, size, log))
        found = differences(outcome(root), peace.outcome)
        problems += [f"after space was freed, {name} differs" for name in found]
        rows.append({"disk fills": "freed", "kept": len(outcome(root)), "damaged": len(found), "clear error": "–"})
    return rows, problems


def _filled(root: Path, size: Size, log: Path, count: int) -> tuple[int, str]:
    """Status and stderr of a run whose disk fills, and stays full, from the moment when `count` events were noted."""
    process, ballast = begin(root, size, log), root / "ballast"
    if wait_for(process, log, count):
        with open(ballast, "wb", buffering=0) as file:
            while process.poll() is None:
                take_all(file)
                time.sleep(0.005)
    message = process.communicate()[1]
    ballast.unlink(missing_ok=True)
    return process.returncode, message


def take_all(file: BinaryIO) -> None:
    """Write zeros until the disk has no room."""
    with suppress(OSError):
        while file.write(bytes(2**12)):
            pass


PUBLISH = """
import sys
from pathlib import Path
from archsae_study.commands.publishing import PROJECT, publish
assert PROJECT == Path(sys.argv[2]), PROJECT  # never the project that this is run from
publish(Path(sys.argv[1]))
"""


def publishing(folder: Path, made: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A disk that fills while the report in run folder `made` is published: the committed one stays whole."""
    rows, problems = [], []
    with mounted(folder / "small", 256 * MIB) as root:
        project = copied_project(root / "project")
        earlier = [project / "results" / "earlier.json", project / "figures" / "earlier.png"]
        for path in earlier:
            path.parent.mkdir()
            path.write_text("{}")
        note_made(project, *earlier)
        needed = sum(path.stat().st_size for path in (*made.glob("0*.ipynb"), *made.glob("results/*.json")))
        before = contents(project)
        # -P: not the packages of the working directory
        command = [sys.executable, "-P", "-B", "-c", PUBLISH, str(made), str(project)]
        for share in (0.0, 0.4, 0.9):
            with open(root / "ballast", "wb", buffering=0) as file:
                take_all(file)
            os.truncate(root / "ballast", (root / "ballast").stat().st_size - int(share * needed))
            process = start(command, PYTHONPATH=str(project))
            message = process.communicate()[1]
            clear = process.returncode != 0 and "No space left" in message
            changed = [name for name, content in contents(project).items() if before.get(name) != content]
            problems += [] if clear else [f"{share:.0%} of the room: status {process.returncode}: {message[-300:]}"]
            problems += [f"{share:.0%} of the room: {name} was changed" for name in changed]
            rows.append({"room to publish": f"{share:.0%}", "files changed": len(changed), "clear error": clear})
            (root / "ballast").unlink()
        finish(start(command, PYTHONPATH=str(project)))
        new = {name for name, content in contents(project).items() if before.get(name) != content}
        expected = {*(f"results/{path.name}" for path in made.glob("results/*.json")),
                    *(f"figures/{path.name}" for path in made.glob("figures/*.png"))}  # fmt: skip
        if not expected <= new or (project / "results" / "earlier.json").exists():
            problems.append(f"after space was freed, {len(expected - new)} files were not published")
        rows.append({"room to publish": "freed", "files changed": len(new), "clear error": "–"})
    return rows, problems


def copied_project(folder: Path) -> Path:
    """Packages and notebooks in a folder of their own: the project of a process that has it first on its path."""
    for name in ("archsae_core", "archsae_study", "notebooks"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


def contents(project: Path) -> dict[str, bytes]:
    """Every file that publishing may touch."""
    folders = ("notebooks", "results", "figures")
    return {f"{name}/{path.name}": path.read_bytes() for name in folders for path in (project / name).iterdir()}


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
        empty = start([*program(root, "whole")])
        message, status = empty.communicate()[1], empty.returncode
        clear = status != 0 and "Read-only file system" in message and "Traceback" not in message
        clear = clear and "runs = " in message and "nothing can be written there" in message
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
