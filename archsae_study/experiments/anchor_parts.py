"""Notebook 01: the parts of the training documents from which seeds have their own anchors, and copies between them.

The split keeps copies on one side, but parts are of documents, so that a copy may lie in another seed's part. What that
adds to the agreement of own anchors is measured: two parts' anchors, with those documents and without.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from archsae_core.config import FRAMES
from archsae_core.data.copies import PASSAGE_WORDS, find_copies
from archsae_core.models.anchors import fit_anchors
from archsae_study.engine import costs
from archsae_study.engine.plan import Table
from archsae_study.engine.study import Study
from archsae_study.experiments.anchors import Agreement, agreement

FITS = 4
"""Fits a frame: of two parts, with the documents that have copies elsewhere and without them."""


@dataclass(frozen=True)
class FrameParts:
    """Anchors of the first two parts in one frame, each fitted on equally many activations."""

    frame: str
    activations: int
    every: Agreement
    """Of all documents of both parts."""
    without: Agreement
    """Of those without a copy in another part."""


@dataclass(frozen=True)
class PartsResult:
    """Parts of the training documents, one a seed."""

    parts: int
    documents: int
    copied: int
    """Documents with an exact or a near copy in another part."""
    frames: list[FrameParts]
    """None where there is one part, or where too few activations are left to cluster."""


def build(study: Study) -> PartsResult:
    """Find the copies between parts, and fit the anchors of two of them again."""
    part, copied = parts_of_documents(study)
    rows, documents = _kept(study)
    found = [[rows[(part[documents] == of) & kept[documents]] for of in (0, 1)] for kept in (part >= 0, ~copied)]
    folds, count = study.config.anchors.anchor_folds, min(len(of) for pair in found for of in pair)
    count = min(count, study.config.anchors.anchor_tokens or count)
    compared = folds > 1 and count >= study.config.anchors.n_anchors
    frames = [_frame(study.variant(frame=frame), found, count) for frame in FRAMES] if compared else []
    return PartsResult(folds, len(part), int(copied.sum()), frames)


def parts_of_documents(study: Study) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Part of every training document with activations, in their order, and whether it has a copy in another part."""
    numbers = np.unique(np.asarray(study.train_activations.document)[study.train_activations.kept])
    part = torch.arange(len(numbers)) % study.config.anchors.anchor_folds
    groups = torch.from_numpy(find_copies([study.corpus.texts[i] for i in numbers.tolist()], PASSAGE_WORDS).groups)
    first = torch.full((len(numbers),), len(numbers)).scatter_reduce(0, groups, part, "amin")[groups]
    last = torch.full((len(numbers),), -1).scatter_reduce(0, groups, part, "amax")[groups]
    return part, first < last


def _kept(study: Study) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Rows of the training activations without outliers, and the place of each one's document among all that have some:
    those in whose order `Study.anchors` divides them."""
    rows = torch.as_tensor(study.train_activations.kept)
    return rows, torch.unique(torch.as_tensor(study.train_activations.document)[rows], return_inverse=True)[1]


def _frame(own: Study, found: list[list[Tensor]], count: int) -> FrameParts:
    every, without = (
        agreement(label, *(_fit(own, rows, count, seed) for seed, rows in enumerate(pair)))
        for label, pair in zip(("all documents", "without copies between parts"), found, strict=True)
    )
    return FrameParts(own.config.activations.frame, count, every, without)


def _fit(own: Study, rows: Int[Tensor, " rows"], count: int, seed: int) -> Tensor:
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].sort().values]
    x = own.normalizer.normalize(own.train_activations.gather(chosen))
    anchors = own.config.anchors
    return fit_anchors(x, anchors.n_anchors, iterations=anchors.kmeans_iterations, seed=seed + 1).points


def _cost(study: Study) -> costs.Cost:
    one = costs.of_anchors(study)
    return costs.Cost(0, one.memory, one.work * (FITS * len(FRAMES)))


TABLE = Table(name="anchor_parts", result=PartsResult, build=build, cost=_cost)
