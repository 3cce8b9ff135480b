"""Planted dictionaries: sparse mixtures of known atoms are taken apart again, by free and archetypal dictionaries."""

import pytest
import torch

from archsae_core.arms import ARMS
from archsae_core.config import configure
from archsae_core.dictionary import make_dictionary
from archsae_core.matching import cosines, match
from archsae_core.sae import SAE
from archsae_core.training import Trainer

D_MODEL, N_ATOMS, K = 24, 24, 2


def planted():
    return torch.nn.functional.normalize(
        torch.randn(N_ATOMS, D_MODEL, generator=torch.Generator().manual_seed(7)), dim=1
    )


def data(step, atoms):
    generator = torch.Generator().manual_seed(step)
    chosen = torch.rand(512, N_ATOMS, generator=generator).topk(K, dim=1).indices
    codes = torch.zeros(512, N_ATOMS).scatter_(1, chosen, 3 + torch.rand(512, K, generator=generator))
    return codes @ atoms


def share_recovered(arm, anchors, **overrides):
    """Share of planted atoms that a trained dictionary holds with cosine above 0.9, one to one."""
    atoms, x = planted(), data(10_000, planted())
    config = configure(
        {"preset": "smoke", "n_features": N_ATOMS, "n_anchors": len(anchors), "k": K, "lr": 3e-3, "dead_after": 10}
        | overrides
    )
    # Codes are positive: not centred, so that a planted atom is a direction from the origin.
    mean, scale = torch.zeros(D_MODEL), float((D_MODEL / x.square().sum(dim=1).mean()).sqrt())
    points = anchors * scale
    sae = SAE(make_dictionary(ARMS[arm], config, points, torch.Generator().manual_seed(0)), K, mean, scale)
    sae.calibrate(x)
    trainer = Trainer(sae, config)
    for step in range(1500):
        trainer.train_step(data(step, atoms))
    similarity = cosines(sae.atoms().detach(), atoms)
    found = match(similarity)
    return (similarity[found.rows, found.cols] > 0.9).float().mean().item()


def test_free_dictionary_recovers_most_atoms():
    assert share_recovered("topk", torch.zeros(1, D_MODEL), n_features=2 * N_ATOMS) >= 0.8


@pytest.mark.parametrize("w_step", ["mirror", "published"])
def test_archetypal_dictionary_recovers_atoms_it_starts_near(w_step):
    """Anchors are the data of single atoms, jittered: the hull holds a direction close to every planted atom."""
    noise = torch.randn(N_ATOMS, D_MODEL, generator=torch.Generator().manual_seed(1))
    anchors = 3.5 * planted() + 0.3 * noise
    assert share_recovered("ra", anchors, w_step=w_step, w_lr=1e-4, delta=0.5) >= 0.8


def test_a_hull_without_the_atoms_cannot_recover_them():
    """Negative control: with every anchor on one line, no atom has another direction, whatever W is."""
    line = torch.linspace(1.0, 3.0, N_ATOMS)[:, None] * planted()[:1]
    assert share_recovered("ra", line, delta=0.0) <= 0.2
