"""Activations of several layers from one pass through the language model."""

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from archsae_core.data.extraction import extract
from archsae_core.storage import write_atomically
from archsae_study.engine.study import Study


def read_layers(studies: Iterable[Study]) -> None:
    """Extract training and held-out activations of studies of several layers, where more than one layer lacks them.

    What is read is put where each layer's own extraction would have begun to write it, complete but not yet sealed:
    the extraction of that layer finds nothing left to read, checks it, and seals it.
    """
    layers = {study.config.language_model.layer: study for study in studies}
    store = next(iter(layers.values())).store
    for part in ("train", "heldout"):
        recipes = {layer: study.source | {"part": part} for layer, study in layers.items()}
        missing = {n: recipe for n, recipe in recipes.items() if not store.path("activations", recipe).exists()}
        if len(missing) > 1:
            build = partial(_read, study=layers[next(iter(missing))], part=part, recipes=missing)
            store.artifact("layers", {"layers": list(missing.values())}, build)


def _copy(folder: Path, work: Path) -> None:
    for path in folder.iterdir():
        write_atomically(work / path.name, partial(shutil.copyfile, path))


def _read(work: Path, study: Study, part: str, recipes: Mapping[int, Mapping[str, Any]]) -> None:
    folders = {layer: work / f"layer_{layer}" for layer in recipes}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    extract(folders, study.model, getattr(study.tokens, part))
    for layer, folder in folders.items():
        study.store.begin("activations", recipes[layer], partial(_copy, folder))
    for folder in folders.values():
        shutil.rmtree(folder)
