"""What a report wrote into its run folder, by name and content: only that is published, and only that is deleted."""

import os
from collections.abc import Callable
from pathlib import Path

from archsae_core.storage import append_entries, file_sha256, read_entries

RECORD = ".made"
"""In a run folder: a line for each file that a report put there, with its name and SHA-256."""


def note_made(folder: Path, *paths: Path) -> None:
    """Record files of a run folder as they are now. A file written again, with other content, has several lines."""
    known = noted(folder)
    entries = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in paths]
    if new := [entry for entry in entries if entry not in known]:
        append_entries(folder / RECORD, new)


def write_made(folder: Path, path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path` in a run folder, and put it in its place (`replace_made`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        replace_made(folder, unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_made(folder: Path, unfinished: Path, path: Path) -> None:
    """Put a finished file in its place. It is recorded first: a kill in between leaves the former, recorded as well."""
    entry = (path.relative_to(folder).as_posix(), file_sha256(unfinished))
    if entry not in noted(folder):
        append_entries(folder / RECORD, [entry])
    os.replace(unfinished, path)


def changed_files(folder: Path) -> set[Path]:
    """Files of a run folder that a report wrote and somebody has changed since."""
    there = {folder / name for name, _ in noted(folder) if _is_file(folder / name)}
    return there - made_files(folder)


def made_files(folder: Path) -> set[Path]:
    """Files of a run folder that still have the content that a report gave them. Links are nobody's."""
    found = {folder / name: set() for name, _ in noted(folder)}
    for name, digest in noted(folder):
        found[folder / name].add(digest)
    return {path for path, digests in found.items() if _is_file(path) and file_sha256(path) in digests}


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def noted(folder: Path) -> set[tuple[str, str]]:
    """Names of files with the hashes that they were recorded with."""
    return set(read_entries(folder / RECORD))
