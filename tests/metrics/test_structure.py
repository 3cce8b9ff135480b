"""The paper's structural metrics: by hand on tiny dictionaries, against overcomplete, against full decompositions."""

import importlib.util
import math

import pytest
import torch
import torch.nn.functional as F
from peers import overcomplete_site

from archsae_core.config import ConfigError
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


def at(*degrees):
    """Unit atoms in the plane."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_nearest_neighbours_by_hand():
    D = at(0.0, 60.0, 90.0, 240.0) * torch.tensor([[1.0], [5.0], [2.0], [3.0]])
    expected = [math.cos(math.radians(degrees)) for degrees in (60, 30, 30, 120)]
    assert structure.nearest_cosines(D).tolist() == pytest.approx(expected, abs=1e-6)


def test_duplicates_become_their_mean_whatever_the_order():
    D = at(0.0, 4.0, 90.0, 91.0, 92.0, 200.0)
    merged = structure.merge_duplicates(D, 0.99, centred=False)
    expected = torch.stack([at(0.0, 4.0).mean(dim=0), at(90.0, 91.0, 92.0).mean(dim=0), at(200.0)[0]])
    assert torch.allclose(merged.atoms, expected, atol=1e-6)
    assert merged.group.tolist() == [0, 0, 1, 1, 1, 2]
    order = torch.tensor([3, 5, 1, 0, 4, 2])
    other = structure.merge_duplicates(7 * D[order], 0.99, centred=False)
    assert torch.allclose(other.atoms[other.group], merged.atoms[merged.group[order]], atol=1e-6)


def test_a_chain_is_one_group_and_its_tightness_says_so():
    chain = at(*range(0, 60, 5), 200.0)  # neighbours 5 degrees apart have a cosine of 0.996
    found = structure.collapse(chain, 0.99, centred=False)
    assert (found.distinct, found.largest) == (2, 12)
    assert found.tightness == pytest.approx(math.cos(math.radians(27.5)), abs=1e-5)
    assert structure.collapse(chain, 0.999, centred=False).distinct == 13


def test_a_common_mean_makes_no_duplicates_of_centred_atoms(seeded):
    D = torch.randn(40, 24) + 60 * F.normalize(torch.randn(24), dim=0)
    assert structure.collapse(D, centred=False).distinct == 1
    found = structure.collapse(D)
    assert (found.distinct, found.largest, found.tightness) == (40, 1, pytest.approx(1))
    assert found.nearest["0.95"] < 0.9


def test_quantiles_of_the_nearest_neighbours(seeded):
    D = torch.randn(50, 8)
    expected = torch.quantile(structure.nearest_cosines(D), torch.tensor(structure.QUANTILES))
    found = structure.collapse(D, centred=False).nearest
    assert list(found) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    assert list(found.values()) == pytest.approx(expected.tolist())


def test_dictionaries_of_equal_atoms_and_of_zeros():
    equal = structure.collapse(torch.ones(5, 3))
    assert (equal.distinct, equal.largest, equal.tightness) == (1, 5, 1.0)
    assert set(equal.nearest.values()) == {1.0}
    alone = structure.collapse(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))  # one atom is the mean
    assert (alone.distinct, alone.tightness) == (3, pytest.approx(1))
    assert max(alone.nearest.values()) < 1
    with pytest.raises(ConfigError, match="D is 0 in every entry"):
        structure.structure(torch.zeros(4, 2), torch.eye(2), codes_of(torch.eye(4)[:2]))


def test_structure_is_that_of_float32_under_autocast(seeded):
    D, x = torch.randn(20, 8), torch.randn(30, 8)
    codes = codes_of((x @ D.T).relu())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = structure.structure(D, x, codes)
    assert within == structure.structure(D, x, codes)
