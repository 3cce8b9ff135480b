"""`clean`: deletes what reports made in a folder of runs, names it, and keeps and names everything else.

What is ours is known by the marker that is written where a store or a run folder is made. Folders from before there was
one are known by what only a report writes: an artefact's manifest whose recipe hashes to the name of its folder, and a
run's `config.json` that hashes to the name of its own. Inside them, a file is ours by the artefact's manifest, by the
record of what was put there, or by what it holds; a name alone proves it only in a folder that is marked as being
built. Symbolic links are neither followed nor deleted.
"""

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from archsae_core.storage import (
    ANY,
    BUILD,
    MARKER,
    CorruptArtifact,
    canonical_hash,
    file_sha256,
    is_marked,
    listed_files,
    noted_files,
    read_json,
)
from archsae_study.commands.runner import NOTEBOOKS
from archsae_study.engine import execution
from archsae_study.engine.made import RECORD, made_files, noted
from archsae_study.engine.source import PROJECT, STORE
from archsae_study.explorer.page import unfinished_files
from archsae_study.settings.config import ConfigError

STAGE = re.compile(r"[a-z][a-z0-9_-]*")
ARTEFACT = re.compile(r"(?P<hash>[0-9a-f]{16})(?P<ending>|\.partial|\.new\.partial|\.lock)")
RUN = re.compile(r"(?P<preset>[a-z0-9]+)-(?P<hash>[0-9a-f]{8})")
TEMPORARY = re.compile(r"(?P<folder>(.+/)?)\.(?P<name>[^/]+)\.\d+\.tmp")
"""What a killed process leaves of a file that it was writing."""
PAGE = ".explorer.partial"
"""Folder in a run folder where the explorer is written."""
OF_A_BUILD = re.compile(
    r"(layer_\d+/)?(\.archsae|\.written|\.[^/]+\.\d+\.tmp|norms\.partial"
    r"|(manifest|extraction|tasks|log|scores|summary|table)\.json"
    r"|(activations|index|anchor_points|normalizer|sae|checkpoint|fired|snapshot_\d{6}|task_\d{3})\.safetensors)"
)
"""Files of an artefact that is being built."""
LOG = "scheduler.log"
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\S+: \d+ runs for \d+ workers|\d+ of \d+: .+)")
TELLING = "it tells that a file beside it was changed since a report wrote it"
FOREIGN, LINK = "not made by a report", "a symbolic link"
UNPROVEN = "neither manifest nor marker tells what in it a report made: delete it by hand if it is of no use"


@dataclass
class Cleaned:
    """What `clean` deleted, or would delete, and what it kept."""

    dry_run: bool
    deleted: dict[Path, list[int]] = field(default_factory=dict)
    """Sizes in bytes of the files, by what they are named after: a run folder, a stage of the store."""
    kept: list[tuple[Path, str]] = field(default_factory=list)
    """A folder or file, and why it is kept."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """A folder or file that could not be deleted, and why."""

    def lines(self) -> list[str]:
        """What to tell people: one line for each, then the sum."""
        verb = "would delete" if self.dry_run else "deleted"
        lines = [f"{verb} {_amount(sizes)} in {path}" for path, sizes in self.deleted.items()]
        lines += [f"kept {path}: {reason}" for path, reason in self.kept]
        lines += [f"could not delete {path}: {reason}" for path, reason in self.failed]
        return [*lines, f"{verb} {_amount(list(itertools.chain(*self.deleted.values())))} in all"]

    def delete(self, files: Iterable[Path], path: Path, name: Path) -> None:
        """Delete the files, which lie in folder `path` or are `path`, and the folders left empty; told under `name`."""
        for file in files:
            try:
                size = file.lstat().st_size
                if not self.dry_run:
                    file.unlink()
                self.deleted.setdefault(name, []).append(size)
            except OSError as error:
                self.failed.append((file, error.strerror or str(error)))
        self.remove_empty(path)

    def remove_empty(self, path: Path) -> None:
        """Remove the folders in `path` that hold nothing, and `path` itself where it holds nothing then."""
        for place, _, _ in os.walk(path, topdown=False) if not self.dry_run else ():
            try:
                if not os.listdir(place):
                    os.rmdir(place)
            except OSError as error:
                self.failed.append((Path(place), error.strerror or str(error)))


def _amount(sizes: Sequence[int]) -> str:
    files, size = len(sizes), sum(sizes)
    scaled = next((f"{size / 10**p:,.1f} {unit}" for unit, p in (("GB", 9), ("MB", 6), ("kB", 3)) if size >= 10**p), "")
    return f"{files:,} {'file' if files == 1 else 'files'}, {scaled or f'{size} bytes'}"


def clean(root: Path, *, dry_run: bool = False) -> Cleaned:
    """Delete the store and the run folders in folder `root`, which stays; with `dry_run`, say only what would go.

    What a process works on is kept, and the whole store while a report runs. Raises ConfigError for a folder that is
    no place for runs: the root, home or project folder or one that holds them, a mount point, a symbolic link, a file.
    """
    _check_place(root)
    found, places = Cleaned(dry_run), sorted(root.iterdir()) if root.exists() else []
    running = [path for path in places if path.is_dir() and _is_run(path) and not _is_idle(path)]
    for path in places:
        if path.is_symlink():
            found.kept.append((path, LINK))
        elif path.name == STORE and path.is_dir() and _is_store(path):
            if running:
                found.kept.append((path, f"a report runs in {running[0]}, and would make all of it again"))
            else:
                _clean_store(path, found)
        elif path.is_dir() and _is_run(path):
            _clean_run(path, found)
        elif path.name == LOG and _is_log(path):
            found.delete([path], path, path)
        else:
            found.kept.append((path, FOREIGN))
    return found


def _check_place(root: Path) -> None:
    shown, here = f"runs = {str(root)!r}", root.resolve()
    if root.is_symlink():
        raise ConfigError(f"{shown}: a symbolic link: give the folder that it points to, {str(here)!r}")
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{shown}: not a folder: give the folder of the runs")
    for name, place in (("home", Path.home().resolve()), ("project's", PROJECT), ("root", Path(here.anchor))):
        if here == place or here in place.parents:
            relation = "is" if here == place else "holds"
            raise ConfigError(f"{shown}: {relation} the {name} folder: give the folder of the runs inside it")
    if os.path.ismount(here):
        raise ConfigError(f"{shown}: a mount point: give the folder of the runs inside it")


def _is_store(folder: Path) -> bool:
    """Whether a report made the folder: it is marked, or holds an artefact whose manifest proves it to be one."""
    return is_marked(folder, "store") or any(listed_files(path) is not None for path in folder.glob("*/*"))


def _is_run(folder: Path) -> bool:
    """Whether a report made the folder: it is marked, or its parameters hash to its name."""
    named = RUN.fullmatch(folder.name)
    if named is None or is_marked(folder, "run"):
        return named is not None
    return _is_config(folder / "config.json")


def _is_config(path: Path) -> bool:
    """Whether a file holds the parameters that the name of its folder is made of: its preset and a hash of them."""
    parameters = _read(path)
    return bool(parameters) and path.parent.name == f"{parameters.get('preset')}-{_hash(parameters)[:8]}"


def _is_timing(path: Path) -> bool:
    try:
        execution.read(path.parent)
    except CorruptArtifact:
        return False
    return True


def _is_log(path: Path) -> bool:
    """Whether every line of a file is one that the scheduler's progress writes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return bool(lines) and all(map(LOG_LINE.fullmatch, lines))


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} for anything else."""
    try:
        content = read_json(path) if path.is_file() and not path.is_symlink() else {}
    except (CorruptArtifact, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _hash(value: Any) -> str:
    try:
        return canonical_hash(value)
    except ValueError:  # NaN, which no file of ours holds
        return ""


def _clean_store(store: Path, found: Cleaned) -> None:
    for stage in sorted(store.iterdir()):
        if stage.is_symlink() or not stage.is_dir() or not STAGE.fullmatch(stage.name):
            if stage.name != MARKER:
                found.kept.append((stage, LINK if stage.is_symlink() else FOREIGN))
            continue
        names: dict[str, list[Path]] = {}
        for path in sorted(stage.iterdir()):
            named = ARTEFACT.fullmatch(path.name)
            locks = named is not None and named["ending"] == ".lock" and path.is_file() and not path.stat().st_size
            if path.is_symlink() or named is None or not (locks or path.is_dir()):
                found.kept.append((path, LINK if path.is_symlink() else FOREIGN))
            else:
                names.setdefault(named["hash"], []).append(path)
        for name, paths in names.items():
            with _free(stage / f"{name}.lock") as free:
                for path in paths:
                    _clean_artefact(path, found, stage) if free else found.kept.append((path, "a process works on it"))
        found.remove_empty(stage)
    left = list(store.iterdir())
    if all(path.name == MARKER and is_marked(store, "store") for path in left):
        found.delete(left, store, store)


def _clean_artefact(path: Path, found: Cleaned, stage: Path) -> None:
    """Delete an artefact's lock, or the artefact but for what its manifest or record does not tell to be ours."""
    files = _files(path)
    ours = set(files) if not path.is_dir() else _of_an_artefact(path, files)
    if files and ours is None:
        found.kept.append((path, UNPROVEN))
        return
    found.kept.extend((file, FOREIGN) for file in files if file not in ours)
    found.delete([file for file in files if file in ours], path, stage)


def _of_an_artefact(folder: Path, files: Sequence[Path]) -> set[Path] | None:
    """Files of a sealed artefact by its manifest, of one that is being built by its record; None without either."""
    if (listed := listed_files(folder)) is not None:
        return {folder / name for name in listed}
    recorded = noted_files(folder)
    ours = {folder / name for name, hashes in recorded.items() if _is_noted(folder / name, hashes)}
    if not ours and not is_marked(folder, BUILD):
        return None
    own = {file for file in files if OF_A_BUILD.fullmatch(file.relative_to(folder).as_posix())}
    return ours | {
        file for file in own if file.relative_to(folder).as_posix() not in recorded and not file.is_symlink()
    }


def _is_noted(path: Path, hashes: set[str]) -> bool:
    return path.is_file() and not path.is_symlink() and (ANY in hashes or file_sha256(path) in hashes)


def _is_idle(run: Path) -> bool:
    with _free(run / ".lock") as free:
        return free


def _clean_run(folder: Path, found: Cleaned) -> None:
    with _free(folder / ".lock") as free:
        if not free:
            found.kept.append((folder, "a report runs in it"))
            return
        files = _files(folder)
        ours = made_files(folder) | {file for file in files if not file.is_symlink() and _is_of_a_run(file, folder)}
        # by them the next report knows that it would replace what a person changed
        changed = {folder / name for name, _ in noted(folder)} & {*files} - ours
        telling = {folder / RECORD, folder / MARKER} if changed else set()
        ours -= telling
        found.kept.extend((file, _why(file, telling)) for file in files if file not in ours)
        found.delete([file for file in files if file in ours], folder, folder)


def _why(file: Path, telling: Collection[Path]) -> str:
    return TELLING if file in telling else LINK if file.is_symlink() else FOREIGN


def _is_of_a_run(file: Path, folder: Path) -> bool:
    """Whether a file that stands in no record is a report's: by its name and by what it holds."""
    name = file.relative_to(folder).as_posix()
    if (left := TEMPORARY.fullmatch(name)) is not None:
        return left["folder"] + left["name"] in {*OF_A_RUN, *(recorded for recorded, _ in noted(folder))}
    if name.startswith(f"{PAGE}/"):
        return file in unfinished_files(folder / PAGE)
    if name in {f"{notebook}.partial.ipynb" for notebook in NOTEBOOKS}:
        return "papermill" in _read(file).get("metadata", {})
    return name in OF_A_RUN and OF_A_RUN[name](file)


OF_A_RUN: dict[str, Callable[[Path], bool]] = {
    "config.json": _is_config,
    execution.TIMING: _is_timing,
    RECORD: lambda path: bool(noted(path.parent)),
    MARKER: lambda path: is_marked(path.parent, "run"),
    ".lock": lambda path: not path.stat().st_size,
}
"""Files of a run folder that stand in no record, and what tells them to be a report's."""


def _files(path: Path) -> list[Path]:
    """Everything in a folder that is no folder, links included, or the file itself. Links are not followed."""
    if not path.is_dir():
        return [path]
    return sorted(
        Path(place) / name for place, folders, names in os.walk(path) for name in _plain(place, folders, names)
    )


def _plain(place: str, folders: list[str], names: list[str]) -> list[str]:
    return [*names, *(name for name in folders if os.path.islink(os.path.join(place, name)))]


@contextmanager
def _free(lock: Path) -> Iterator[bool]:
    """Whether no process holds the lock; no other can take it inside the block. A lock that is missing is free."""
    if not lock.exists():
        yield True
        return
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError:  # nothing can be written there, and so not deleted either: whoever tries is told
        yield True
        return
    try:
        yield True
    finally:
        held.release()
