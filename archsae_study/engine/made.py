"""What a report wrote into its run folder, by name and content: only that is published, and only that is deleted."""

import json
import os
from pathlib import Path

from archsae_core.storage import file_sha256, parse_json

RECORD = ".made"
"""In a run folder: a line for each file that a report put there, with its name and SHA-256."""


def note_made(folder: Path, *paths: Path) -> None:
    """Record files of a run folder as they are now. A file written again, with other content, has several lines."""
    known = noted(folder)
    lines = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in paths]
    text = "".join(json.dumps(line) + "\n" for line in lines if line not in known)
    if text:
        with open(folder / RECORD, "a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":  # cut short by a kill
                text = "\n" + text
            file.write(text.encode())


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
    record = folder / RECORD
    text = record.read_text(encoding="utf-8", errors="replace") if _is_file(record) else ""
    found = set()
    for line in text.splitlines():
        try:
            entry = parse_json(line)
        except ValueError:  # cut short by a kill: the file is written again by the next report
            continue
        match entry:
            case [str(name), str(digest)]:
                found.add((name, digest))
    return found
