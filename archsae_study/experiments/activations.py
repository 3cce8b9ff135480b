"""Notebook 01: documents, tokens and norms of the activations, and what was dropped."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from archsae_core.config import FRAMES
from archsae_core.data.copies import CopiesReport
from archsae_core.data.corpus import Part, Split, composition, describe
from archsae_core.data.tokens import window_start
from archsae_study.engine.plan import Table
from archsae_study.engine.study import Study


@dataclass(frozen=True)
class ActivationsResult:
    """What is known of the activations before any dictionary."""

    documents: dict[str, int]
    """By part: train, validation, heldout."""
    tokens: dict[str, int]
    topics: list[str]
    """Labels of documents; none where the text has none."""
    text: str
    """One line on the documents."""
    composition: list[Part]
    """Sources of the documents, the largest first."""
    copies: CopiesReport
    window_start: list[str]
    """Tokens that every window begins with, at position 0; for most tokenizers none."""
    train: dict[str, float]
    """`ActivationSet.stats`: norms in the model's own units."""
    heldout: dict[str, float]
    scale: dict[str, float]
    """By frame: raw to normalised units."""
    norm_edges: list[float]
    """In units of the median norm; the last bin holds everything above."""
    norm_counts: list[int]


def build(study: Study) -> ActivationsResult:
    """Read from the artefacts of the study."""
    train, name = study.train_activations, study.config.corpus.text
    parts = {part: getattr(study.tokens, part) for part in Split._fields}
    edges = np.linspace(0, 4, 41)
    ratio = np.minimum(train.norm.numpy() / train.stats["median_norm"], edges[-1] - 1e-6)
    return ActivationsResult(
        documents={part: len(set(tokens.document.tolist())) for part, tokens in parts.items()},
        tokens={part: tokens.n_tokens for part, tokens in parts.items()},
        topics=list(study.corpus.topics),
        text=describe(study.corpus, name),
        composition=list(composition(study.corpus, name)),
        copies=study.tokens.copies,
        window_start=[study.tokenizer.decode([i]) for i in window_start(study.tokenizer, study.config.corpus.bos)],
        train=_plain(train.stats),
        heldout=_plain(study.heldout_activations.stats),
        scale={frame: float(study.variant(frame=frame).normalizer.scale) for frame in FRAMES},
        norm_edges=edges.tolist(),
        norm_counts=np.histogram(ratio, bins=edges)[0].tolist(),
    )


def _plain(stats: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in stats.items()}


TABLE = Table(name="activations", result=ActivationsResult, build=build)
