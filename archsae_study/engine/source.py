"""What a study starts from, cheaply: enough to find stored results without loading a model."""

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archsae_core.config import require
from archsae_core.data.copies import has_invisible
from archsae_core.data.corpus import load_text
from archsae_core.data.model_files import HUB_FILES, model_fingerprint
from archsae_core.data.text_files import documents_in
from archsae_core.storage import canonical_hash, file_sha256
from archsae_study.settings.config import Config
from archsae_study.settings.values import given_path

PROJECT = Path(__file__).resolve().parents[2]
"""The project's folder: notebooks, results, figures, runs."""
STORE = "store"
"""Folder of artefacts in the folder of runs."""
TEXT_FIELDS = ("model", "revision", "layer", "text", "text_revision", "text_field", "label_field", "text_layout",
               "decode_entities", "near_copies", "context", "tokens", "bos", "heldout_fraction", "validation_fraction",
               "dtype", "outlier_factor")  # fmt: skip


def default_root() -> Path:
    """Where runs are kept: $ARCHSAE_RUNS, from the working directory, else `runs` in the project's folder.

    Where the package is installed without the project, nothing is written beside it: `runs` in the working directory.
    Raises ConfigError where a file is there, or for what is no path.
    """
    given = os.environ.get("ARCHSAE_RUNS", "").strip()
    root = given_path("ARCHSAE_RUNS", given or (PROJECT / "runs" if has_notebooks() else "runs"))
    require(not root.exists() or root.is_dir(), "ARCHSAE_RUNS", str(root), "is a file: name a folder")
    return root


def has_notebooks() -> bool:
    """Whether the project's folder is here, and not the installed packages alone."""
    return (PROJECT / "notebooks").is_dir()


def local_inputs(config: Config) -> dict[str, str]:
    """By name of the parameter, a hash of every model and text that is a file or folder here, as far as it exists.

    Of a folder only what is read counts: whatever else lies there may change.
    """
    given = {name: config[name] for name in ("text", "model", "other_model") if config[name] is not None}
    places = {name: Path(value) for name, value in given.items() if os.path.isabs(value)}
    text = places.get("text")
    if text and not text.exists():  # a configuration of a dataset in a folder
        places["text"] = Path(config["text"].partition(":")[0])
    return {name: _content(place, name == "text") for name, place in places.items() if place.exists()}


def _content(place: Path, is_text: bool) -> str:
    if not place.is_dir():
        files = [place]
    elif is_text:  # README.md may say which files are which part
        files = [*documents_in(place), *place.glob("README.md")]
    else:
        files = sorted({path for pattern in HUB_FILES for path in place.glob(pattern)})
    files = [path for path in files if path.is_file()]  # a pipe would be waited for, and is refused where it is read
    return canonical_hash([(str(path.relative_to(place)), _digest(path, *_state(path))) for path in files])


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@functools.cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return file_sha256(path)


def fields_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a Config, by name."""
    return {name: config[name] for name in names}


def source_of(config: Config) -> dict[str, Any]:
    """What a study's activations are determined by: language model, text, and how they are read."""
    corpus = load_text(config.corpus)
    hashes = {"model_hash": model_fingerprint(config.language_model), "text_hash": corpus.fingerprint}
    # earlier versions took a word with a soft hyphen for two, and so missed copies in such texts
    invisible = {"invisible": "left out"} if any(has_invisible(text) for text in corpus.texts) else {}
    return fields_of(config, TEXT_FIELDS) | hashes | invisible
