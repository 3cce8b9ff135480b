"""Where a command writes: looked at before any work begins, and nothing is replaced but what the command wrote."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from archsae_core.config import require
from archsae_study.settings.values import absolute, given_path

LONGEST_NAME = 230
"""Bytes of a file's name: while it is written, it has 25 more."""


def output_file(
    name: str, given: str | Path, inputs: Iterable[str | Path], is_ours: Callable[[Path], bool], what: str
) -> Path:
    """The place of a file that option `name` asks for, behind every link.

    Raises ConfigError where it cannot be written, would replace an input, or a file that `is_ours` does not take for
    `what` the command wrote.
    """
    place = given_path(name, given).resolve()
    require(not place.is_dir() and place.parent.is_dir(), name, str(given), "name a file in a folder that there is")
    short = len(os.fsencode(place.name)) <= LONGEST_NAME
    require(short, name, str(given), f"its name is too long: give one of {LONGEST_NAME} bytes at most")
    taken = {absolute(each).resolve() for each in inputs}
    require(place not in taken, name, str(given), "it is compared and would be replaced: name another file")
    own = not place.exists() or (place.is_file() and is_ours(place))
    require(own, name, str(given), f"it is there and no {what}: name another file, or move it elsewhere")
    require_writable(name, given, place.parent)
    return place


def output_folder(name: str, given: str | Path) -> Path:
    """The place of a folder that `name` asks for. Raises ConfigError where it holds something or cannot be written."""
    place = given_path(name, given).resolve()
    require(place.is_dir() or not place.exists(), name, str(given), "it is a file: name a new folder")
    empty = not place.exists() or not os.listdir(place)
    require(empty, name, str(given), "it is not empty: name a new one, so that no file of another export stays")
    require_writable(name, given, place)
    return place


def require_writable(name: str, given: str | Path, folder: Path) -> None:
    """Raise ConfigError where nothing can be written in a folder, found by trying: permissions do not tell all.

    What is made for it goes again.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = f"nothing can be written there ({error.strerror}): name another place"
        require(False, name, str(given), fix)
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
