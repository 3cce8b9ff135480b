"""Sparse autoencoders with free and archetypal dictionaries: data, models and metrics, without Jupyter.

    from archsae_core import SAE, ArchetypalDictionary, TrainingConfig, fit_anchors, fit_normalizer, quality, train

Public names are imported when they are first used: `import archsae_core` alone loads neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsae_core.config import ConfigError, TrainingConfig
    from archsae_core.data.activations import ActivationSet, Normalizer, fit_normalizer, open_activations
    from archsae_core.data.extraction import extract
    from archsae_core.interop import from_overcomplete, from_saelens, open_sae, to_saelens
    from archsae_core.metrics.behaviour import behaviour
    from archsae_core.metrics.matching import match
    from archsae_core.metrics.reconstruction import Quality, quality, r2
    from archsae_core.metrics.stability import Side, chance_levels, compare, cosine_with_start, hungarian_centred
    from archsae_core.metrics.structure import collapse, structure
    from archsae_core.models.anchors import Anchors, fit_anchors
    from archsae_core.models.dictionary import ArchetypalDictionary, FreeDictionary
    from archsae_core.models.sae import SAE, Codes, load_sae, save_sae
    from archsae_core.models.training import TrainingDiverged, train

__version__ = "0.1.0"

_WHERE = {
    "config": ("ConfigError", "TrainingConfig"),
    "data.activations": ("ActivationSet", "Normalizer", "fit_normalizer", "open_activations"),
    "data.extraction": ("extract",),
    "interop": ("from_overcomplete", "from_saelens", "open_sae", "to_saelens"),
    "metrics.behaviour": ("behaviour",),
    "metrics.matching": ("match",),
    "metrics.reconstruction": ("Quality", "quality", "r2"),
    "metrics.stability": ("Side", "chance_levels", "compare", "cosine_with_start", "hungarian_centred"),
    "metrics.structure": ("collapse", "structure"),
    "models.anchors": ("Anchors", "fit_anchors"),
    "models.dictionary": ("ArchetypalDictionary", "FreeDictionary"),
    "models.sae": ("SAE", "Codes", "load_sae", "save_sae"),
    "models.training": ("TrainingDiverged", "train"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "SAE",
    "ActivationSet",
    "Anchors",
    "ArchetypalDictionary",
    "Codes",
    "ConfigError",
    "FreeDictionary",
    "Normalizer",
    "Quality",
    "Side",
    "TrainingConfig",
    "TrainingDiverged",
    "behaviour",
    "chance_levels",
    "collapse",
    "compare",
    "cosine_with_start",
    "extract",
    "fit_anchors",
    "fit_normalizer",
    "from_overcomplete",
    "from_saelens",
    "hungarian_centred",
    "load_sae",
    "match",
    "open_activations",
    "open_sae",
    "quality",
    "r2",
    "save_sae",
    "structure",
    "to_saelens",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
