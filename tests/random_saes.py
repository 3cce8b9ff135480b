"""Random small SAEs of every kind, for properties."""

import random

import torch
from torch import Tensor

from archsae_core.models.about import About
from archsae_core.models.dictionary import ArchetypalDictionary, Dictionary, FreeDictionary, random_weights
from archsae_core.models.sae import SAE


def random_sae(seed: int) -> SAE:
    """Free or archetypal, any norms, frame, activation, k and delta; no parameter is where it started."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    d_model, n_features = choose.randint(2, 12), choose.randint(2, 24)
    raw = choose.random() < 0.5
    mean = 30 * torch.randn(d_model, generator=generator)
    dictionary = _dictionary(choose, d_model, n_features, generator)
    scale, frame = choose.choice([1.0, 0.03, 2.5]), "raw" if raw else "centred"
    activation = choose.choice(["topk", "batchtopk"])
    sae = SAE(dictionary, choose.randint(1, n_features), mean, scale, frame, activation=activation)
    if activation == "batchtopk":
        sae.threshold.fill_(choose.choice([0.0, 0.7]))
    with torch.no_grad():
        for parameter in (sae.W_enc, sae.b_enc, *([] if raw else [sae.b_dec])):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    sae.about = About(
        model=choose.choice([None, "HuggingFaceTB/SmolLM2-135M"]),
        layer=choose.choice([None, 0, 22]),
        excluded_positions=choose.choice([(), (0,)]),
        metrics=choose.choice([{}, {"r2": 0.75}]),
    )
    return sae


def _dictionary(choose: random.Random, d_model: int, n_features: int, generator: torch.Generator) -> Dictionary:
    unit_norm = choose.random() < 0.5
    if choose.random() < 0.5:
        start = torch.randn(n_features, d_model, generator=generator)
        return FreeDictionary(start, trainable=choose.random() < 0.5, unit_norm=unit_norm)
    anchors = torch.randn(choose.randint(2, 16), d_model, generator=generator)
    weights, delta = random_weights(n_features, len(anchors), generator), choose.choice([0.0, 0.5, 2.0])
    dictionary = ArchetypalDictionary(anchors, weights, delta=delta, unit_norm=unit_norm, learn_scale=not unit_norm)
    with torch.no_grad():
        dictionary.relax.normal_(generator=generator)
        dictionary.log_scale.fill_(choose.choice([0.0, 0.4]))
    dictionary.project_()
    return dictionary


def activations_of(sae: SAE, n: int = 64) -> Tensor:
    """Raw activations [n, d_model] that normalise to a standard normal."""
    return torch.randn(n, sae.d_model, generator=torch.Generator().manual_seed(0)) / sae.scale + sae.shift
