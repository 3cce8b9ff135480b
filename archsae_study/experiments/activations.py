"""What is read of the text: documents, tokens, norms of the activations, and what is dropped (01)."""

from typing import Any

import numpy as np

from archsae_study.plan import Table
from archsae_study.study import Study


def activations(study: Study) -> dict[str, Any]:
    """Documents, tokens and norms of the activations, what was dropped, and examples of the norm distribution."""
    train, heldout = study.train_activations, study.heldout_activations
    edges = np.linspace(0, 4, 41)
    counts = np.histogram(train.norm.numpy() / train.stats["median_norm"], bins=edges)[0]
    documents = {part: len(set(getattr(study.tokens, part).document.tolist())) for part in study.tokens._fields}
    return {
        "documents": documents,
        "tokens": {part: getattr(study.tokens, part).n_tokens for part in study.tokens._fields},
        "labels": sorted(set(study.corpus.labels)) if study.corpus.labels else None,
        "train": train.stats,
        "heldout": heldout.stats,
        "scale": study.normalizer.scale,
        "norm_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


TABLE = Table(name="activations", result=dict, build=activations)
