"""Stable against unstable features: who counts as stable, how groups are matched, what ablating and swapping report."""

import numpy as np
import pytest
import torch
from toy import unit_sae

from archsae_study.experiments import reappearance as tables
from archsae_study.experiments import swap


def test_reappearance_is_the_share_of_seeds_with_a_close_partner():
    atoms = torch.eye(3)
    same = atoms[[2, 0, 1]]
    turned = torch.stack([atoms[0], atoms[1], atoms[2] + 2 * atoms[1]])  # the third has cosine 0.45 with its partner
    assert tables.reappearance([atoms, same, same]).tolist() == [[1, 1, 1]] * 3
    # `same` holds the third atom first
    assert tables.reappearance([atoms, same, turned]).tolist() == [[1, 1, 0.5], [0.5, 1, 1], [1, 1, 0]]


def test_matched_groups_have_the_same_mass_and_size():
    generator = np.random.default_rng(0)
    mass = np.exp(generator.normal(size=400))
    stable = mass > np.median(mass) * np.exp(generator.normal(scale=0.5, size=400))  # stable ones are heavier
    usable = generator.random(400) < 0.9
    a, b = tables.matched_groups(mass, stable, usable, 1000)
    assert len(a) == len(b) > 20
    assert stable[a].all()
    assert not stable[b].any()
    assert usable[a].all()
    assert usable[b].all()
    assert len(np.unique(a)) == len(a)
    assert np.abs(np.log2(mass[a] / mass[b])).max() <= 0.5
    assert np.log(mass[stable & usable]).mean() - np.log(mass[~stable & usable]).mean() > 0.5
    assert abs(np.log(mass[a]).mean() - np.log(mass[b]).mean()) < 0.1
    assert len(tables.matched_groups(mass, stable, usable, 7)[0]) == 7
    assert len(tables.matched_groups(mass, np.ones(400, bool), usable, 7)[0]) == 0


def test_without_switches_off_exactly_the_group():
    sae = unit_sae(4, 4, k=2)
    x = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert tables.without(sae, np.array([0]), x).tolist() == [[0, 2, 0, 0]]  # no other feature takes its place
    assert tables.without(sae, np.array([], dtype=int), x).tolist() == sae(x).tolist()


def test_differences_are_of_pairs():
    found = tables._difference(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.stable, found.unstable) == (3, 2)
    assert found.difference == (1.0, 1.0, 1.0)


def test_shares_are_ratios_of_sums():
    sums = np.array([[1.0, 4.0, 8.0, 4.0], [0.0, 4.0, 8.0, 4.0]])
    found = swap._shares(sums)
    assert [found[name].estimate for name in ("partner", "second", "random")] == pytest.approx([1 / 8, 1, 2])
    assert found["partner"].low == 0
    assert swap._shares(sums[:0])["partner"] is None
