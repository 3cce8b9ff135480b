"""What is read of the text: documents, tokens, norms of the activations, and what is dropped (01)."""

from typing import Any

import numpy as np

from archsae_core.data.corpus import Split, composition, describe
from archsae_study.plan import Table
from archsae_study.study import Study
from archsae_study.typed import to_json


def activations(study: Study) -> dict[str, Any]:
    """Documents, tokens and norms of the activations, what was dropped, and examples of the norm distribution."""
    train, heldout = study.train_activations, study.heldout_activations
    edges = np.linspace(0, 4, 41)
    counts = np.histogram(train.norm.numpy() / train.stats["median_norm"], bins=edges)[0]
    parts = {part: getattr(study.tokens, part) for part in Split._fields}
    name, copies = study.config.corpus.text, study.tokens.copies
    return {
        "documents": {part: len(set(tokens.document.tolist())) for part, tokens in parts.items()},
        "tokens": {part: tokens.n_tokens for part, tokens in parts.items()},
        "labels": list(study.corpus.topics) or None,
        "text": describe(study.corpus, name),
        "composition": [part._asdict() for part in composition(study.corpus, name)],
        "copies": to_json(copies) | {"groups": copies.groups},
        "train": train.stats,
        "heldout": heldout.stats,
        "scale": study.normalizer.scale,
        "norm_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


TABLE = Table(name="activations", result=dict, build=activations)
