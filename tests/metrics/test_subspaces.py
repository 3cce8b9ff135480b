"""Subspaces of sets of atoms: what spans them, and what another holds of them."""

import pytest
import torch

from archsae_core.metrics import subspaces

D_MODEL = 32


def atoms_in(directions, n=200, seed=0):
    """Random atoms in the span of some directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(directions), generator=generator) @ directions


@pytest.fixture
def basis():
    return torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(7))).Q.T


def test_leading_directions_are_orthonormal_and_in_order(basis):
    rows = atoms_in(basis[:4] * torch.tensor([[1.0], [4.0], [2.0], [3.0]]), n=20_000)
    directions = subspaces.leading(rows)
    assert torch.allclose(directions @ directions.T, torch.eye(D_MODEL).double(), atol=1e-9)
    cosine = (directions[:4].float() @ basis[:4].T).abs()
    assert cosine.argmax(dim=1).tolist() == [1, 3, 2, 0]
    assert cosine.amax(dim=1).min() > 0.99


def test_a_subspace_is_the_smallest_that_holds_half(basis):
    rows = torch.cat([basis[:1] * 3, basis[1:2] * 2, basis[2:3] * 2])  # squared norms 9, 4, 4 of 17
    assert len(subspaces.subspace(rows)) == 1
    rows[0] *= 0.9  # 7.29 of 15.29
    assert len(subspaces.subspace(rows)) == 2
    assert subspaces.held(rows, basis[:1]) == pytest.approx(7.29 / 15.29)
    assert subspaces.held(rows, basis) == pytest.approx(1)
    assert subspaces.held(rows, basis[3:]) == pytest.approx(0, abs=1e-12)


def test_seeds_that_share_no_atom_can_share_their_subspace(basis):
    found = subspaces.compare([atoms_in(basis[:8], seed=seed) for seed in range(3)], basis.flip(0))
    assert found.other.estimate == pytest.approx(found.own, abs=0.1)
    assert found.own >= 0.5
    assert found.rank <= 5
    assert found.chance == pytest.approx(found.rank / D_MODEL)
    assert found.data == pytest.approx(0, abs=1e-9)  # the last directions of the basis come first here
    assert found.other.low <= found.other.estimate <= found.other.high


def test_seeds_in_different_parts_share_none(basis):
    found = subspaces.compare([atoms_in(basis[:8]), atoms_in(basis[8:16])], basis)
    assert found.other.estimate == pytest.approx(0, abs=1e-9)
    assert found.other.low is None
    assert found.own >= 0.5


def test_the_length_of_an_atom_does_not_matter(basis):
    atoms = [atoms_in(basis[:8], seed=seed) for seed in range(2)]
    assert subspaces.compare([rows * 100 ** torch.rand(len(rows), 1) for rows in atoms], basis).own == pytest.approx(
        subspaces.compare(atoms, basis).own
    )


def test_too_few_atoms_are_not_compared(basis):
    atoms = [atoms_in(basis), atoms_in(basis, n=subspaces.SMALLEST - 1)]
    assert subspaces.compare(atoms, basis) is None
