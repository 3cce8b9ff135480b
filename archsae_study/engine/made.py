"""What a report wrote into its run folder, by name and content: only that is published, and only that is deleted."""

import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from archsae_core.config import ConfigError
from archsae_core.storage import append_entries, file_sha256, read_entries, write_atomically

RECORD = ".made"
"""In a run folder: a line for each file that a report put there, with its name and SHA-256."""


def note_made(folder: Path, *paths: Path) -> None:
    """Record files of a run folder as they are now. A file written again, with other content, has several lines."""
    known = noted(folder)
    entries = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in paths]
    if new := [entry for entry in entries if entry not in known]:
        append_entries(folder / RECORD, new)


def write_made(folder: Path, path: Path, write: Callable[[Path], object]) -> None:
    """`write_atomically` into a run folder, recorded before the rename: a kill in between leaves the former file.

    Raises ConfigError, before anything is written, where `path` holds what no report wrote, or what somebody changed.
    """
    if path.exists() and path not in made_files(folder, [path]):
        raise ConfigError(f"{path} is not as a report wrote it and would be replaced: move it elsewhere")
    write_atomically(path, write, partial(_note, folder, path))


def replace_made(folder: Path, unfinished: Path, path: Path) -> None:
    """Put a finished file in its place, recorded before as `write_made` does."""
    _note(folder, path, unfinished)
    os.replace(unfinished, path)


def _note(folder: Path, path: Path, finished: Path) -> None:
    """Record for `path` the content that it is about to get."""
    entry = (path.relative_to(folder).as_posix(), file_sha256(finished))
    if entry not in noted(folder):
        append_entries(folder / RECORD, [entry])


def changed_files(folder: Path) -> set[Path]:
    """Files of a run folder that a report wrote and somebody has changed since."""
    there = {folder / name for name, _ in noted(folder) if _is_file(folder / name)}
    return there - made_files(folder)


def made_files(folder: Path, among: Collection[Path] | None = None) -> set[Path]:
    """Files of a run folder, or those `among` them, that still have the content that a report gave them.

    Links are nobody's.
    """
    entries = [(folder / name, digest) for name, digest in noted(folder) if among is None or folder / name in among]
    found: dict[Path, set[str]] = {}
    for path, digest in entries:
        found.setdefault(path, set()).add(digest)
    return {path for path, digests in found.items() if _is_file(path) and file_sha256(path) in digests}


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def noted(folder: Path) -> set[tuple[str, str]]:
    """Names of files with the hashes that they were recorded with."""
    return set(read_entries(folder / RECORD))
