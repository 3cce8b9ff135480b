"""Any direction lies in the hull of centroids that surround the origin; the closed form against the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsae_core.models.hull import weights_for
from archsae_study.config import ConfigError

SQUARE = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
EQUAL = torch.ones(4, dtype=torch.int64)


def test_square_by_hand():
    """From the centre of a square to its edge: the point (1, 0) is half of each right corner."""
    weights = weights_for(torch.tensor([[3.0, 0.0]]), SQUARE, EQUAL)
    assert torch.allclose(weights, torch.tensor([[0.5, 0.0, 0.0, 0.5]], dtype=torch.float64), atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(15, 40))
def test_rows_are_stochastic_and_point_along_the_direction(seed, d_model, n_anchors):
    generator = torch.Generator().manual_seed(seed)
    occupancy = torch.randint(1, 50, (n_anchors,), generator=generator)
    anchors = torch.randn(n_anchors, d_model, generator=generator)
    anchors -= (occupancy[:, None] * anchors).sum(dim=0) / occupancy.sum()
    directions = torch.randn(8, d_model, generator=generator)
    weights = weights_for(directions, anchors, occupancy)
    assert weights.min() >= 0
    assert torch.allclose(weights.sum(dim=1), torch.ones(8, dtype=torch.float64))
    points = weights @ anchors.double()
    assert torch.nn.functional.cosine_similarity(points, directions.double()).min() > 1 - 1e-6
    assert points.norm(dim=1).min() > 1e-4


def test_anchors_on_one_side_are_refused():
    with pytest.raises(ConfigError, match="origin is not inside"):
        weights_for(torch.tensor([[1.0, 0.0]]), SQUARE + 5, EQUAL)


def test_anchors_on_a_line_are_refused():
    line = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ConfigError, match="do not span"):
        weights_for(torch.tensor([[1.0, 0.0]]), line, EQUAL[:3])
