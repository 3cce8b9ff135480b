"""Checks of the anchors: occupancy, distinctness, unexplained variance; how well k-means finds them again (01)."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from archsae_core.metrics import stability
from archsae_core.storage import read_json
from archsae_study.plan import Table
from archsae_study.study import Study


def anchors(study: Study) -> dict[str, Any]:
    """Checks of the shared anchors: occupancy, distinctness, unexplained variance; how well they are found again."""
    folder = study.anchor_folder()
    points = load_file(folder / "anchor_points.safetensors")
    first, seed = study.anchors(0), study.config.comparison.n_seeds + 1  # folds have the seeds up to n_seeds
    refit = {"same documents, another start": _agreement(first, study.fit_anchors(0, seed).points)}
    if study.config.comparison.n_seeds > 1:
        refit["other documents, another start"] = _agreement(first, study.anchors(1))
    return read_json(folder / "summary.json") | {
        "occupancy": sorted(points["occupancy"].tolist(), reverse=True),
        "refit": refit,
        "gamma": stability.gamma(points["anchors"]),
    }


def _agreement(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> dict[str, float]:
    compared = stability.compare(stability.Side(a), stability.Side(b))
    return {name: compared[name]["hungarian_centred"] for name in ("raw", "chance", "normalised")}


def folds(study: Study) -> list[int | None]:
    """Anchors that are looked at: those of all training documents, and of the first two parts."""
    return [None, *range(min(2, study.config.comparison.n_seeds))]


def _points(study: Study) -> Path:
    return study.anchor_folder() / "anchor_points.safetensors"


TABLE = Table(
    name="anchors",
    result=dict,
    build=anchors,
    folds=folds,
    fields=("n_seeds",),
    copies={"anchor_points.safetensors": _points},
)
