"""Notebook 01: the anchors, how well they are found again, and whether their hull excludes anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from archsae_core.config import FRAMES
from archsae_core.metrics import stability
from archsae_core.models import hull
from archsae_core.storage import read_json
from archsae_core.tensor_files import read_tensors
from archsae_study.engine import costs
from archsae_study.engine.plan import Table
from archsae_study.engine.study import Study


@dataclass(frozen=True)
class Agreement:
    """Headline score of two sets of anchors, each fitted from a start of its own."""

    label: str
    raw: float
    chance: float
    normalised: float


@dataclass(frozen=True)
class FrameAnchors:
    """The shared anchors of one frame."""

    frame: str
    artefact: str
    """Where they lie in the store."""
    summary: dict[str, Any]
    """`anchor_statistics`: norms, nearest cosines, unexplained variance, empty and coinciding centroids."""
    gamma: float
    """‖mean‖ / spread of the anchors: how much of them is a mean that they share."""
    origin_inside: bool
    """Whether the hull of the anchors holds the origin."""
    vacuous: bool
    """Whether every direction is a direction of the hull, so that the constraint excludes none."""
    margin: float
    """Smallest cosine of an anchor with the direction that separates the hull from the origin; 0 where none does."""


@dataclass(frozen=True)
class AnchorsResult:
    """Anchors in both frames."""

    frames: list[FrameAnchors]
    occupancy: list[int]
    """Activations of each centroid of the centred frame, the largest first."""
    again: list[Agreement]
    """Fitted again: from another start on the same documents, and on other documents."""

    def of(self, frame: str) -> FrameAnchors:
        """The anchors of a frame."""
        return next(found for found in self.frames if found.frame == frame)


def build(study: Study) -> AnchorsResult:
    """Check the anchors of both frames."""
    centred = study.variant(frame="centred")
    stored = read_tensors(centred.anchor_folder() / "anchor_points.safetensors").tensors
    first = centred.anchors(0)
    again = [agreement("same documents, another start", first, centred.fit_anchors(0, seed=10**6).points)]
    if study.config.anchors.anchor_folds > 1:
        again.append(agreement("other documents, another start", first, centred.anchors(1)))
    occupancy = sorted((int(count) for count in stored["occupancy"]), reverse=True)
    return AnchorsResult([_frame(study, frame) for frame in FRAMES], occupancy, again)


def _frame(study: Study, frame: str) -> FrameAnchors:
    folder = study.variant(frame=frame).anchor_folder()
    points = read_tensors(folder / "anchor_points.safetensors").tensors["anchors"]
    origin = hull.origin(points)
    return FrameAnchors(
        frame,
        artefact(folder),
        read_json(folder / "summary.json"),
        stability.gamma(points),
        origin.inside,
        origin.vacuous,
        origin.margin,
    )


def artefact(folder: Path) -> str:
    """Where an artefact lies in the store."""
    return f"{folder.parent.name}/{folder.name}"


def agreement(label: str, a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> Agreement:
    """Headline score of two sets of anchors."""
    compared = stability.compare(stability.Side(a), stability.Side(b))
    return Agreement(label, *(compared[name][stability.HEADLINE] for name in ("raw", "chance", "normalised")))


def needed(study: Study) -> list[tuple[Study, int | None]]:
    """Anchors that the table looks at: those of all documents in both frames, and of the first two parts."""
    centred = study.variant(frame="centred")
    parts = range(min(2, study.config.anchors.anchor_folds))
    return [*((study.variant(frame=frame), None) for frame in FRAMES), *((centred, part) for part in parts)]


def _cost(study: Study) -> costs.Cost:
    """One k-means more than the anchors that are kept."""
    return costs.of_anchors(study.variant(frame="centred"))


TABLE = Table(
    name="anchors",
    result=AnchorsResult,
    build=build,
    anchors=needed,
    cost=_cost,
    copies={"anchor_points.safetensors": lambda study: study.anchor_folder() / "anchor_points.safetensors"},
)
