"""Notebooks 02 and 03: one trained dictionary, its training and held-out quality; and where the constraint binds."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from archsae_core.config import FRAMES
from archsae_core.models import hull
from archsae_core.models.training import read_log
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, cosines_with_start
from archsae_study.engine.study import Study
from archsae_study.experiments.anchors import artefact

SAMPLED = 512
"""Atoms whose nearest point of the anchors' cone is computed."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class DictionaryResult:
    """One trained dictionary."""

    role: str
    """`topk`, `topk-kmeans` or `ra`."""
    arm: str
    frame: str
    artefact: str
    """Where it lies in the store."""
    log: list[dict[str, float]]
    """One row each 20 steps: `step`, `r2`, `l0`, `dead`, `aux`; if archetypal, the state of its constraint too."""
    quality: dict[str, Any]
    """Held-out `Quality` with intervals over documents, and the violation of the constraint."""
    cosine_with_start: dict[int, float]
    """By kept step: mean cosine of the atoms with where they started."""


@dataclass(frozen=True)
class ReachOfAtoms:
    """How near the cone of a frame's anchors comes to the atoms of a free dictionary."""

    role: str
    label: str
    cosine: dict[str, float]
    """Quantiles, by their level, of the largest cosine that an atom has with any direction of the cone."""
    cosines: list[float]
    """Of every sampled atom, in ascending order."""
    support: float | None
    """Anchors that the nearest point is made of, median; None where nothing has to be projected."""


@dataclass(frozen=True)
class FrameBinding:
    """Where the constraint binds in one frame."""

    frame: str
    vacuous: bool
    reaches: list[ReachOfAtoms]
    anchor_cosine_with_mean: dict[str, float]
    """Quantiles of the cosines of the anchors with their mean: a narrow cone has large ones."""


@dataclass(frozen=True)
class BindingResult:
    """Both frames."""

    frames: list[FrameBinding]

    def of(self, frame: str) -> FrameBinding:
        """One frame."""
        return next(found for found in self.frames if found.frame == frame)


def dictionary(study: Study, role: str) -> DictionaryResult:
    """The trained dictionary of a role."""
    run = study.main_run(role)
    folder = study.run_folder(run)
    return DictionaryResult(
        role=role,
        arm=run.arm,
        frame=study.config.activations.frame,
        artefact=artefact(folder),
        log=[{name: float(value) for name, value in row.items()} for row in read_log(folder)],
        quality=study.scores(run).as_dict(),
        cosine_with_start=cosines_with_start(folder, run.steps),
    )


def main_runs(study: Study, *roles: str) -> list[Run]:
    """The runs of some roles in both frames."""
    return [study.main_run(role, frame) for frame in FRAMES for role in roles]


def binding(study: Study) -> BindingResult:
    """Non-negative least squares: the point of the anchors' cone that is nearest to each atom of free dictionaries."""
    return BindingResult([_binding(study, frame) for frame in FRAMES])


def _binding(study: Study, frame: str) -> FrameBinding:
    own = study.variant(frame=frame)
    points = own.anchors()
    origin = hull.origin(points)
    roles = {"topk": "free, random start", "topk-kmeans": "free, from these centroids"}
    reaches = [_reach(study, role, label, frame, points, origin) for role, label in roles.items()]
    with_mean = torch.nn.functional.cosine_similarity(points, points.mean(dim=0)[None], dim=1)
    return FrameBinding(frame, origin.vacuous, reaches, _quantiles(with_mean))


def _reach(
    study: Study, role: str, label: str, frame: str, points: Float[Tensor, "n_anchors d_model"], origin: hull.Origin
) -> ReachOfAtoms:
    atoms = study.sae(study.main_run(role, frame)).atoms().detach().cpu()
    chosen = torch.randperm(len(atoms), generator=torch.Generator().manual_seed(0))[:SAMPLED]
    found = hull.reach(atoms[chosen], points, origin)
    return ReachOfAtoms(
        role,
        label,
        _quantiles(found.cosine),
        found.cosine.sort().values.tolist(),
        None if found.support is None else float(found.support.float().median()),
    )


def _quantiles(values: Float[Tensor, " n"]) -> dict[str, float]:
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    found = torch.quantile(values.double(), levels)
    return {f"{level:g}": float(value) for level, value in zip(QUANTILES, found, strict=True)}


def _table(name: str, role: str) -> Table[DictionaryResult]:
    """The table of the dictionary of a role, with its weights beside it."""
    return Table(
        name=name,
        result=DictionaryResult,
        build=lambda study: dictionary(study, role),
        runs=lambda study: [study.main_run(role)],
        fields=("seed", "heldout_tokens"),
        copies={f"{name}.safetensors": lambda study: study.run_folder(study.main_run(role)) / "sae.safetensors"},
    )


STANDARD, ARCHETYPAL = _table("standard_sae", "topk"), _table("archetypal_sae", "ra")
KMEANS = _table("kmeans_sae", "topk-kmeans")
"""The fair baseline of notebook 03: free, from the centroids of the archetypal dictionary."""
BINDING = Table(
    name="binding",
    result=BindingResult,
    build=binding,
    runs=lambda study: main_runs(study, "topk", "topk-kmeans"),
    anchors=lambda study: [(study.variant(frame=frame), None) for frame in FRAMES],
    fields=("seed",),
)
