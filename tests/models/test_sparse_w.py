"""Archetypal dictionaries with few anchors an atom: the rule against a dense one, the constraint, the file."""

from dataclasses import replace

import pytest
import torch
from models.test_training import build, data, run

from archsae_core.config import ConfigError
from archsae_core.metrics.reconstruction import quality
from archsae_core.models import w_step
from archsae_core.models.dictionary import ArchetypalDictionary, SparseArchetypalDictionary
from archsae_core.models.sae import SAE, load_sae
from archsae_core.models.training import Trainer, train
from archsae_core.models.w_step import BLOCKS, ENTERS, SparseMirrorStep

SPARSE = {"w_step": "sparse", "support": 4, "w_dtype": "float32"}


def dictionary(n_features=24, n_anchors=30, m=4):
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(n_anchors, 6, generator=generator)
    weights = torch.rand(n_features, n_anchors, generator=generator).topk(m, dim=1)
    return SparseArchetypalDictionary(anchors, tuple(weights), delta=0.3)


def test_from_anchors_it_starts_where_a_dense_one_does():
    anchors = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    sparse = SparseArchetypalDictionary.from_anchors(anchors, 12, delta=0.5, support=4, unit_norm=False)
    dense = ArchetypalDictionary.from_anchors(anchors, 12, delta=0.5, smoothing=None, unit_norm=False)
    assert sparse.weights.shape == (12, 4)
    assert torch.equal(sparse.W, dense.W)
    assert torch.allclose(sparse.atoms(), dense.atoms())
    assert SparseArchetypalDictionary.from_anchors(anchors).weights.shape == (10, 10)
    with pytest.raises(ConfigError, match="support = 0"):
        SparseArchetypalDictionary.from_anchors(anchors, support=0)


def dense_rule(W, slope, rate, m):
    """The rule written out for one row of all anchors."""
    W, held = W.clone(), W > 0
    W[held] *= torch.exp((-rate * slope[held]).clamp(-5, 5))
    W /= W.sum()
    best = min((j for j in range(len(W)) if not held[j]), key=lambda j: slope[j])
    if slope[best] < (W * slope).sum():
        if held.sum() == m:
            W[min(held.nonzero().flatten().tolist(), key=lambda j: W[j])] = 0
        W *= (1 - ENTERS) / W.sum()
        W[best] = ENTERS
    return W


def test_step_is_the_dense_rule():
    sparse = dictionary()
    step = SparseMirrorStep(sparse, lr=0.01)
    generator = torch.Generator().manual_seed(1)
    before = sparse.W.clone()
    for number in range(3 * BLOCKS):
        rows = slice(number % BLOCKS, None, BLOCKS)
        slope = torch.randn(len(range(24)[rows]), 30, generator=generator)
        expected = before.clone()
        for row, slopes in zip(range(24)[rows], slope, strict=True):
            expected[row] = dense_rule(before[row], slopes, 0.01 * BLOCKS, 4)
        step._move(rows, slope.clone(), 1.0)
        torch.testing.assert_close(sparse.W, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(step.hull, sparse.W @ sparse.C, rtol=1e-4, atol=1e-5)
        before = expected
    assert sparse.violation() == 0
    assert ((sparse.W > 0).sum(dim=1) <= 4).all()
    assert all(len(set(row)) == 4 for row in sparse.W_indices.tolist())


def test_rows_that_start_with_one_anchor_fill_up_to_the_support_and_no_further():
    sae, config = build(**SPARSE)
    trainer = Trainer(sae, config)
    assert ((sae.dictionary.W > 0).sum(dim=1) == 1).all()
    for step in range(config.steps):
        trainer.train_step(data(step))
        assert sae.dictionary.violation() == 0
    held = (sae.dictionary.W > 0).sum(dim=1)
    assert held.max() == 4
    assert 1 < trainer.log[-1]["effective_anchors"] <= 4


def test_atoms_and_gradients_are_those_of_the_dense_dictionary():
    sparse = dictionary()
    dense = ArchetypalDictionary(sparse.C, sparse.W, delta=0.3)
    with torch.no_grad():
        sparse.relax.normal_(generator=torch.Generator().manual_seed(2))
        dense.relax.copy_(sparse.relax)
    torch.testing.assert_close(sparse.atoms(), dense.atoms())
    found, wanted = (torch.autograd.grad((own.atoms() ** 3).sum(), own.relax)[0] for own in (sparse, dense))
    torch.testing.assert_close(found, wanted)
    some = torch.tensor([3, 0])
    assert torch.equal(sparse.rows(some), sparse.W[some])
    assert sum(tensor.numel() for tensor in (sparse.W_indices, sparse.W_values)) == 2 * 24 * 4


def test_file_keeps_indices_and_values(tmp_path):
    trained = run("ra", tmp_path, **SPARSE)
    loaded = load_sae(tmp_path / "sae.safetensors")
    assert isinstance(loaded.dictionary, SparseArchetypalDictionary)
    assert torch.equal(loaded.dictionary.W, trained.dictionary.W)
    assert torch.equal(loaded(data(3)), trained(data(3)))


def test_a_moving_support_explains_more_than_a_fixed_one(monkeypatch):
    def explained():
        sae, config = build(**SPARSE | {"steps": 150, "w_lr": 0.01, "delta": 0.0})
        return quality(train(sae, data, config), torch.cat([data(900), data(901)])).r2

    moving = explained()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(48, 48, generator=generator).topk(4, dim=1).indices
    monkeypatch.setattr(w_step, "ENTERS", 0.0)
    sae, config = build(**SPARSE | {"steps": 150, "w_lr": 0.01, "delta": 0.0})
    nearest = (sae.dictionary.C @ sae.dictionary.C.T).topk(4, dim=1).indices
    for indices in (chosen, nearest):
        fixed = SparseArchetypalDictionary(sae.dictionary.C, (torch.full((48, 4), 0.25), indices), delta=0.0)
        other = train(SAE(fixed, sae.k, sae.mean, float(sae.scale)), data, config)
        assert moving > quality(other, torch.cat([data(900), data(901)])).r2 + 0.02


def test_the_step_and_the_dictionary_must_agree():
    sae, _ = build(**SPARSE)
    with pytest.raises(ConfigError, match="w_step = 'mirror': the dictionary is a SparseArchetypalDictionary"):
        Trainer(sae, build()[1])


@pytest.mark.parametrize("w_step", ["mirror", "sparse"])
@pytest.mark.parametrize("support", [1, 2])
def test_rows_stay_on_the_simplex_with_one_anchor_and_rows_of_0_stay_0(w_step, support):
    """An atom of one anchor has none to exchange weight with; one without anchors is Λ alone."""
    sae, config = build(**SPARSE | {"w_step": w_step, "support": support})
    with torch.no_grad():
        sae.dictionary.weights[3] = 0.0
        sae.dictionary.relax[3] = 0.1
    trainer = Trainer(sae, config)
    for step in range(20):
        trainer.train_step(data(step))
    expected = torch.ones(48)
    expected[3] = 0.0
    torch.testing.assert_close(sae.dictionary.weights.detach().sum(dim=1), expected)


def test_a_support_other_than_the_dictionary_s_is_refused():
    sae, config = build(**SPARSE)
    with pytest.raises(ConfigError, match="support = 5: an atom of the dictionary mixes 4 of 48 anchors at most"):
        Trainer(sae, replace(config, support=5))


def test_a_sparse_row_of_0_can_be_given():
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    dictionary = SparseArchetypalDictionary(data(0)[:5], (values, torch.tensor([[0, 1], [2, 3]])), delta=1.0)
    assert torch.equal(dictionary.W_values, values)
