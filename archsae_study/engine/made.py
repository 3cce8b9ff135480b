"""What a report wrote into its run folder, by name and content: only that is published, and only that is deleted."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from archsae_core.config import ConfigError
from archsae_core.storage import (
    REPAIR,
    append_entries,
    file_sha256,
    keep,
    read_entries,
    switched_on,
    write_atomically,
)

RECORD = ".made"
"""In a run folder: a line for each file that a report put there, with its name and SHA-256."""


def note_made(folder: Path, *paths: Path) -> None:
    """Record files of a run folder as they are now. A file written again, with other content, has several lines."""
    note_finished(folder, {path: path for path in paths})


def note_finished(folder: Path, files: Mapping[Path, Path]) -> None:
    """Record files that are about to be put in their places in a run folder: by place, the finished file."""
    known = noted(folder)
    entries = [(place.relative_to(folder).as_posix(), file_sha256(finished)) for place, finished in files.items()]
    if new := [entry for entry in entries if entry not in known]:
        append_entries(folder / RECORD, new)


def write_made(folder: Path, path: Path, write: Callable[[Path], object]) -> None:
    """`write_atomically` into a run folder, recorded before the rename: a kill in between leaves the former file.

    Raises ConfigError, and leaves what is there, where it is somebody's.
    """
    write_atomically(path, write, partial(_note, folder, path))


def replace_made(folder: Path, unfinished: Path, path: Path) -> None:
    """Put a finished file in its place, recorded before as `write_made` does; somebody's file is refused as there."""
    _note(folder, path, unfinished)
    os.replace(unfinished, path)


def _note(folder: Path, path: Path, finished: Path) -> None:
    """Record for `path` the content that it is about to get.

    Raises ConfigError where other content is there that no report wrote, or that somebody changed. Where
    $ARCHSAE_REPAIR is set, what a report once wrote may be damaged, and is kept beside it under another name.
    """
    digest, there = file_sha256(finished), file_sha256(path) if _is_file(path) else None
    # read after the hash was taken: another process may have replaced the file, and records it before
    known = {known for name, known in noted(folder) if folder / name == path}
    if os.path.lexists(path) and there not in known | {digest}:
        if there is None or not (known and switched_on(REPAIR)):
            raise ConfigError(f"{path} is not as a report wrote it and would be replaced: move it elsewhere")
        keep(path)
    if digest not in known:
        append_entries(folder / RECORD, [(path.relative_to(folder).as_posix(), digest)])


def changed_files(folder: Path) -> set[Path]:
    """Files of a run folder that a report wrote and somebody has changed since."""
    there = {folder / name for name, _ in noted(folder) if os.path.lexists(folder / name)}
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
