"""What a study starts from, cheaply: enough to find stored results without loading a model."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archsae_core.data.corpus import load_text
from archsae_core.data.model_files import model_fingerprint
from archsae_core.storage import jsonable
from archsae_study.config import FIELDS, Config

PROJECT = Path(__file__).resolve().parents[1]
"""The project's folder: notebooks, results, figures, runs."""
STORE = "store"
"""Folder of artefacts in the folder of runs."""
RECIPE = 1
ANCHOR_RECIPE = 2
RUN_RECIPE = 2
"""Raised whenever the code changes what an artefact holds, so that older ones are not taken for it."""
TEXT_FIELDS = ("model", "revision", "layer", "text", "text_revision", "text_field", "label_field", "context", "tokens",
               "heldout_fraction", "validation_fraction", "dtype", "outlier_factor")  # fmt: skip

WITHOUT_EFFECT = {"preset", "device", "checkpoint_every", "scheduler"}
ONLY_FOR = {
    "stability_results": {"arms"},
    "probing": {"arms"},
    "reappearance": {"arms"},
    "swap": {"arms"},
    "ablation_results": {"deltas", "ablation_steps", "ablation_seeds"},
    "w_steps": {"ablation_steps"},
    "robustness": {"arms", "ablation_steps"},
    "longer": {"arms", "longer_factor"},
    "features": {"feature"},
}
"""Fields that matter to these tables only; all others matter to every table but those of `DEPENDS_ONLY_ON`."""
DEPENDS_ONLY_ON = {"identifiability": {"steps"}}
"""Tables that few fields change: this one's data are made on the spot."""


def default_root() -> Path:
    """Where runs are kept: $ARCHSAE_RUNS, else `runs` in the project's folder."""
    return Path(os.environ.get("ARCHSAE_RUNS") or PROJECT / "runs")


def fields_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a Config, by name."""
    return {name: config[name] for name in names}


def source_of(config: Config) -> dict[str, Any]:
    """What a study's activations are determined by: language model, text, and how they are read."""
    hashes = {"model_hash": model_fingerprint(config.language_model), "text_hash": load_text(config.corpus).fingerprint}
    return fields_of(config, TEXT_FIELDS) | hashes | {"recipe": RECIPE}


def determining(table: str, config: Config) -> dict[str, Any]:
    """The fields of `config` that the table's content depends on."""
    elsewhere = set().union(*ONLY_FOR.values()) - ONLY_FOR.get(table, set())
    fields = DEPENDS_ONLY_ON.get(table, set(FIELDS) - WITHOUT_EFFECT - elsewhere)
    return {name: value for name, value in jsonable(config.flat()).items() if name in fields}
