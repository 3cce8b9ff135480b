"""The paper's structural metrics: by hand on tiny dictionaries, against overcomplete, against full decompositions."""

import importlib.util
import math

import pytest
import torch
from peers import overcomplete_site

from archsae_core.metrics import structure
from archsae_core.models.sae import Codes


def codes_of(dense):
    values, indices = dense.topk(2, dim=1)
    return Codes(values, indices)


def test_ranks_of_known_dictionaries():
    assert structure.stable_rank(torch.eye(5)) == pytest.approx(5)
    assert structure.effective_rank(torch.eye(5)) == pytest.approx(5)
    parallel = torch.tensor([[1.0, 2.0, 2.0]]).repeat(7, 1)
    assert structure.stable_rank(parallel) == pytest.approx(1)
    assert structure.effective_rank(parallel) == pytest.approx(1, abs=1e-5)
    # σ = 3 and 1: (9 + 1) / 9, and exp of the entropy of (3/4, 1/4).
    uneven = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert structure.stable_rank(uneven) == pytest.approx(10 / 9)
    assert structure.effective_rank(uneven) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_ranks_do_not_depend_on_the_shape_of_the_gram_matrix(seeded):
    D = torch.randn(30, 8)
    s = torch.linalg.svdvals(D.double())
    assert structure.stable_rank(D) == pytest.approx(float((s**2).sum() / s[0] ** 2))
    assert structure.stable_rank(D.T.contiguous()) == pytest.approx(structure.stable_rank(D))


def test_coherence_is_the_largest_absolute_cosine():
    half = math.sqrt(0.5)
    assert structure.coherence(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 3.0]])) == pytest.approx(half)
    assert structure.coherence(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])) == pytest.approx(1)


def test_ood_score_over_batches():
    D = torch.eye(2)
    x = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    # The first atom is parallel to an activation, the second has cosine √½ with its nearest.
    expected = 1 - (1 + math.sqrt(0.5)) / 2
    assert structure.ood_score(D, [x]) == pytest.approx(expected)
    assert structure.ood_score(D, x.split(1)) == pytest.approx(expected)
    assert structure.ood_score(D, [-x[:1]]) == pytest.approx(1.5)  # cosines −1 and 0: opposite is farther than across


def test_connectivity_counts_pairs_that_never_fire_together():
    z = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    zz = structure.coactivation(codes_of(z), 4)
    assert (zz.toarray() == (z.T @ z / 2).numpy()).all()
    assert structure.connectivity(zz) == pytest.approx(1 - 5 / 16)  # pairs (0,0), (1,1), (0,1), (1,0), (2,2)


def test_negative_interference_by_hand():
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    zz = structure.coactivation(codes_of(z), 2)
    opposed = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    # Only the pair (0, 1) cancels: mean of z_0 z_1 is 1, the atoms' product −0.6; [[0, a], [a, 0]] has norm a.
    assert structure.negative_interference(zz, opposed) == pytest.approx(0.6)
    assert structure.negative_interference(zz, opposed.abs()) == 0


def test_large_matrices_get_the_same_spectral_norm(seeded, monkeypatch):
    D, z = torch.randn(80, 6), torch.randn(200, 80).relu()
    zz = structure.coactivation(codes_of(z), 80)
    iterative = structure.negative_interference(zz, D)
    monkeypatch.setattr(structure, "DENSE_BELOW", 1000)
    assert iterative == pytest.approx(structure.negative_interference(zz, D), rel=1e-6)


def test_structure_gathers_all(seeded):
    D, x = torch.randn(12, 6), torch.randn(50, 6)
    codes = codes_of((x @ D.T).relu())
    found = structure.structure(D, x, codes)
    assert found.stable_rank == structure.stable_rank(D)
    assert found.n_tokens == 50
    assert 0 < found.connectivity < 1


def test_coherence_agrees_with_overcomplete(seeded):
    path = overcomplete_site() / "overcomplete" / "metrics.py"
    spec = importlib.util.spec_from_file_location("overcomplete_metrics", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    D = torch.randn(40, 16)
    assert structure.coherence(D) == pytest.approx(theirs.dictionary_collinearity(D)[0], abs=1e-5)
