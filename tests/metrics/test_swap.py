"""Swapping one feature for another inside a language model: known pairs, exact zeros, one feature a row."""

import numpy as np
import pytest
import torch
from toy import D_MODEL, language_model, unit_sae

from archsae_core.data.splice import splice
from archsae_core.metrics.swap import VARIANTS, Pairs, choose_pairs, contribution, swap
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE

LAYER = 1


@pytest.fixture(scope="module")
def model():
    return language_model("llama")


def ids_of(seed, length=9):
    return np.random.default_rng(seed).integers(1, 50, length).astype(np.int32)


def permuted(sae, order):
    """The same autoencoder with its features renamed: feature i of the copy is feature order[i] of `sae`."""
    copy = SAE(FreeDictionary(sae.atoms().detach()[order]), sae.k, sae.mean, float(sae.scale))
    with torch.no_grad():
        copy.W_enc.copy_(sae.W_enc[order])
    return copy


def test_pairs_are_the_match_the_runner_up_and_one_of_the_same_rate():
    a = unit_sae(4, 4)
    atoms = torch.tensor([[0.0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 0], [0.5, 0.4, 0, 0.2]])
    b = SAE(FreeDictionary(atoms), 1, torch.zeros(4), 1.0)
    rates = (torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.2, 0.1, 0.35, 0.4]))
    pairs = choose_pairs(a, b, rates, torch.arange(4), 4)
    place = {int(f): i for i, f in enumerate(pairs.feature)}
    assert [pairs.replacement[place[i], 0].item() for i in range(4)] == [1, 0, 2, 3]
    assert pairs.replacement[place[0], 1] == 3  # after its match, feature 0 is nearest to the mixed atom
    assert pairs.cosine[place[0], 0] == 1
    assert (pairs.replacement[:, 3] == -1).all()
    assert all(len(set(row)) == 3 for row in pairs.replacement[:, :3].tolist())
    assert (pairs.cosine[:, 0].diff() >= 0).all()
    assert len(choose_pairs(a, b, rates, torch.tensor([0, 3]), 1).feature) == 1


def test_contribution_by_hand():
    sae = unit_sae(4, 4, k=2, scale=2.0)
    x = torch.tensor([[1.0, 3.0, 0.0, 0.0], [0.0, 5.0, 4.0, 0.0]])
    codes = sae.encode(x)
    found = contribution(sae, sae.atoms(), codes, torch.tensor([1, 0]))
    assert found.tolist() == [[0, 3, 0, 0], [0, 0, 0, 0]]  # the second fires features 1 and 2 only
    assert contribution(sae, sae.atoms(), codes, torch.tensor([-1, -1])).abs().sum() == 0


def test_the_same_feature_under_another_name_changes_nothing(model):
    a = unit_sae(2 * D_MODEL, D_MODEL, k=6)
    order = torch.randperm(2 * D_MODEL, generator=torch.Generator().manual_seed(0))
    b = permuted(a, order)
    rates = torch.ones(2 * D_MODEL), torch.ones(2 * D_MODEL)
    pairs = choose_pairs(a, b, rates, torch.arange(2 * D_MODEL), 8)
    found = swap(model, LAYER, (a, b), pairs, [(i, ids_of(i)) for i in range(8)])
    assert np.abs(found.kl[:, 0]).max() < 1e-6
    assert np.abs(found.ce[:, 0]).max() < 1e-5
    removed = found.kl[:, VARIANTS.index("removed")]
    assert removed.max() > 1e-3
    assert found.kl[:, 1:3].sum() > removed.sum()  # a wrong feature is added to what is missing


def test_rows_are_what_a_plain_splice_of_each_gives(model):
    """Each row swaps a feature of its own, as if it ran alone; padding and a window's first token do not count."""
    a, b = unit_sae(2 * D_MODEL, D_MODEL, k=6), unit_sae(2 * D_MODEL, D_MODEL, k=3)
    pairs = Pairs(torch.tensor([3, 7]), torch.tensor([[5, 1, 2, -1], [9, 4, 8, -1]]), torch.zeros(2, 3))
    windows = [(0, ids_of(1)), (1, ids_of(2, 6))]
    found = swap(model, LAYER, (a, b), pairs, windows)
    assert found.tokens.tolist() == [7, 4]
    for row, (pair, ids) in enumerate(windows):

        def edited(x, pair=pair):
            mine, theirs = a.encode(x), b.encode(x)
            one, other = (torch.full((len(x),), int(f)) for f in (pairs.feature[pair], pairs.replacement[pair, 0]))
            taken = contribution(a, a.atoms(), mine, one)
            return a.reconstruct(mine, a.atoms()) - taken + contribution(b, b.atoms(), theirs, other)

        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        ones = torch.ones_like(tokens)
        plain, changed = (splice(model, LAYER, tokens, ones, f)[0, 1:-1].log_softmax(1) for f in (a.forward, edited))
        expected = (plain.exp() * (plain - changed)).sum()
        assert found.kl[row, 0] == pytest.approx(expected.item(), abs=1e-4)
        target = tokens[0, 2:, None]
        assert found.ce[row, 0] == pytest.approx((plain - changed).gather(1, target).sum().item(), abs=1e-4)


def test_batches_do_not_matter(model):
    a, b = unit_sae(2 * D_MODEL, D_MODEL, k=6), unit_sae(D_MODEL, D_MODEL, k=3)
    pairs = choose_pairs(a, b, (torch.rand(2 * D_MODEL), torch.rand(D_MODEL)), torch.arange(2 * D_MODEL), 5)
    windows = [(i, ids_of(i, 5 + i)) for i in range(5)]
    one, many = (swap(model, LAYER, (a, b), pairs, windows, batch_size=size) for size in (1, 4))
    assert one.kl == pytest.approx(many.kl, abs=1e-4)
