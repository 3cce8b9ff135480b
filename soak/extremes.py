"""Every parameter at its least and at its greatest useful value, alone and where two of them meet."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archsae_study.settings.config import FIELDS
from soak.studies import Ended, attempt, whole

LEAST = 1e-30
"""Of what must be positive."""
ALONE: dict[str, tuple[Any, ...]] = {
    "layer": (0, 2),
    "context": (3, 4, 64),
    "dtype": ("float32", "bfloat16"),
    "near_copies": (False,),
    "decode_entities": (False,),
    "tokens": (1, 200, 1000, "all", 10**12),
    "bos": ("true", "false"),
    "heldout_fraction": (LEAST, 0.499),
    "validation_fraction": (LEAST, 0.499),
    "frame": ("raw",),
    "outlier_factor": (1.0, 1e300),
    "n_anchors": (2, 3, 23, 25, 10**9),
    "anchor_tokens": (1, 16, 17, "all", 10**12),
    "kmeans_iterations": (1, 60),
    "anchor_folds": (1, 2, 3, 10**6),
    "n_features": (2, 3, 15, 33, 48),
    "k": (1, 23, 24),
    "activation": ("batchtopk",),
    "delta": (0, LEAST, 1e6),
    "unit_norm": (False,),
    "learn_scale": (True,),
    "smoothing": (LEAST, 1 - 1e-9),
    "w_step": ("published", "sparse"),
    "support": (1, 10**6),
    "w_dtype": ("float32", "bfloat16"),
    "lr": (LEAST, 1.0),
    "w_lr": (LEAST, 1.0),
    "steps": (1, 2, 3),
    "decay": (0, 1),
    "batch_size": (2, 3, 5000),
    "aux_k": (1, 10**6),
    "aux_coefficient": (0, 100),
    "dead_after": (1, 10**9),
    "checkpoint_every": (1, 10**9),
    "seed": (2**40 - 1,),
    "n_seeds": (2,),
    "arms": (("topk-random-own",), ("ra-own",), ("raw-frozen-own",)),
    "longer_factor": (1, 3),
    "other_settings": (False,),
    "full_size_steps": (1, 2),
    "raw_full_size_steps": (1, 2),
    "published_full_size_steps": (1, 2),
    "deltas": ((0,), (LEAST,), (1e6,), (0, 0.5, 1, 2, 3, 4, 5)),
    "ablation_steps": (1, 2),
    "ablation_seeds": (2, 3),
    "heldout_tokens": (2, 3, "all", 10**12),
    "behaviour_tokens": (1, 2, 10**12),
    "probe_tasks": (0, 1, "all"),
    "probe_prompts": (8, 10**9),
    "feature": (0, 23),
    "scheduler": ("local:1",),
}
"""Values by field. Those that name files, models and texts have tests of their own."""
TOGETHER: tuple[dict[str, Any], ...] = (
    {"n_features": 2, "k": 1},
    {"n_features": 2, "k": 2},
    {"n_anchors": 2, "n_features": 2, "k": 1},
    {"unit_norm": False, "learn_scale": True, "w_step": "published"},
    {"w_step": "sparse", "support": 1},
    {"w_step": "sparse", "support": 16, "delta": 0},
    {"n_seeds": 3, "anchor_folds": 3, "n_anchors": 4},
    {"steps": 1, "ablation_steps": 1, "batch_size": 2},
    {"delta": 0, "deltas": (0,), "unit_norm": False},
    {"heldout_tokens": 2, "behaviour_tokens": 1},
    {"frame": "raw", "n_features": 2, "k": 1},
)
ELSEWHERE = frozenset(
    {
        "preset",
        "model",
        "revision",
        "device",
        "text",
        "text_revision",
        "text_field",
        "label_field",
        "text_layout",
        "other_model",
        "other_model_layer",
    }
)
"""Fields without an extreme."""


def cases() -> list[dict[str, Any]]:
    """Everything that is tried, one study each."""
    return [{name: value} for name, values in ALONE.items() for value in values] + list(TOGETHER)


def run(folder: Path, tried: Iterable[dict[str, Any]] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what failed."""
    if missing := set(FIELDS) - set(ALONE) - ELSEWHERE:
        raise AssertionError(f"soak/extremes.py: no extremes of {', '.join(sorted(missing))}")
    counts, problems = Counter[str](), []
    for number, parameters in enumerate(cases() if tried is None else tried):
        ended = tried_alone(parameters, folder / str(number))
        counts[ended.how] += 1
        if ended.how == "failed":
            problems.append(f"{parameters}: {ended.message}")
    row = {"extremes": counts.total(), "all notebooks": counts["done"], "refused by name": counts["refused"]}
    return [row], problems


def tried_alone(parameters: dict[str, Any], root: Path) -> Ended:
    """A study of its own, which leaves no files."""
    try:
        return attempt(parameters, root, whole)
    finally:
        shutil.rmtree(root, ignore_errors=True)
