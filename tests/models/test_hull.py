"""Where the hull holds the origin, how near its cone comes to a direction: by hand, against SciPy, with proofs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, nnls

from archsae_core.config import ConfigError
from archsae_core.models import hull
from archsae_core.models.hull import origin, reach

SQUARE = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])


# --- the origin ---


def test_distance_and_separator_by_hand():
    found = origin(torch.tensor([[1.0, 1.0], [1.0, -1.0], [5.0, 3.0]]))
    assert (found.inside, found.vacuous) == (False, False)
    assert found.distance == pytest.approx(1)
    assert found.separator.tolist() == pytest.approx([1, 0])
    assert found.margin == pytest.approx(math.sqrt(0.5))


def test_a_hull_around_the_origin_excludes_nothing():
    found = origin(SQUARE)
    assert (found.inside, found.vacuous, found.separator, found.margin) == (True, True, None, 0)
    assert found.distance == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("anchors", [[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [-1.0, 0.0]]])
def test_an_origin_on_the_hull_s_edge_is_inside_and_yet_directions_are_excluded(anchors):
    found = origin(torch.tensor(anchors))
    assert (found.inside, found.vacuous) == (True, False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 20), st.floats(0, 2))
def test_the_origin_is_inside_where_linear_programming_says_so(seed, d_model, n_anchors, shift):
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randn(n_anchors, d_model, generator=generator)
    anchors[:, 0] += shift
    found = origin(anchors)
    points = np.vstack([anchors.double().numpy().T, np.ones(n_anchors)])
    convex = linprog(np.zeros(n_anchors), A_eq=points, b_eq=np.append(np.zeros(d_model), 1)).status == 0
    assert found.inside == convex
    assert found.vacuous == convex  # random anchors have no edge through the origin
    if not convex:  # the nearest point of the hull, and every anchor on its far side: nothing in the hull is nearer
        assert (anchors.double() @ found.separator).min().item() == pytest.approx(found.distance, rel=1e-6)
        assert (F.normalize(anchors.double(), dim=1) @ found.separator).min().item() == pytest.approx(found.margin)


def test_an_anchor_of_zeros_is_refused():
    with pytest.raises(ValueError, match="all zeros"):
        origin(torch.zeros(1, 3))


# --- the cone ---


def test_reach_by_hand():
    directions = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 3.0], [3.0, 1.0]])
    cone = torch.tensor([[1.0, 0.0], [4.0, 4.0]])  # all directions from 0 to 45 degrees
    found = reach(directions, cone)
    assert found.cosine.tolist() == pytest.approx([1, math.sqrt(0.5), -math.sqrt(0.5), 4 / math.sqrt(20), 1])
    assert found.support.tolist() == [1, 1, 0, 1, 2]
    assert found.violation < 1e-9


def test_a_hull_around_the_origin_reaches_every_direction(seeded):
    assert reach(torch.randn(5, 2), SQUARE).cosine.tolist() == [1] * 5


def test_half_a_plane_reaches_half_of_the_directions():
    half = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    found = reach(torch.tensor([[0.3, 2.0], [1.0, -1.0], [0.0, -1.0]]), half)
    assert found.cosine.tolist() == pytest.approx([1, math.sqrt(0.5), 0], abs=1e-9)


def scipy_cosines(directions, anchors):
    """The same from SciPy's residual of every direction; 0 where the projection is the origin."""
    points, targets = (F.normalize(rows.double(), dim=1).numpy() for rows in (anchors, directions))
    return [math.sqrt(max(0.0, 1 - nnls(points.T, target)[1] ** 2)) for target in targets]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 60), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
def test_reach_is_scipy_s_answer_and_its_conditions_hold(seed, d_model, n_anchors, shift, doubles):
    generator = torch.Generator().manual_seed(seed)
    mean = shift * torch.randn(d_model, generator=generator)
    anchors = mean + torch.randn(n_anchors, d_model, generator=generator)
    if doubles:  # two of everything, nearly
        anchors = torch.cat([anchors, anchors * (1 + 1e-7 * torch.randn(anchors.shape, generator=generator))])
    directions = torch.cat([torch.randn(20, d_model, generator=generator), anchors[:3], 2 * anchors[:3] + anchors[-3:]])
    found = reach(directions, anchors)
    assert found.cosine.clamp_min(0).tolist() == pytest.approx(scipy_cosines(directions, anchors), abs=2e-6)
    assert found.cosine[20:].tolist() == pytest.approx([1.0] * len(found.cosine[20:]))
    assert found.violation < 1e-8
    none = found.support == 0
    nearest = (F.normalize(directions, dim=1) @ F.normalize(anchors, dim=1).T).amax(dim=1)
    assert found.cosine[none].tolist() == pytest.approx(nearest[none].tolist(), abs=1e-6)


def test_anchors_on_one_side_of_many_dimensions_and_directions_in_parts(seeded, monkeypatch):
    anchors = torch.randn(300, 40) + 1.5 * F.normalize(torch.randn(40), dim=0) * 40**0.5
    directions = torch.randn(50, 40) + 0.3 * anchors[:50]
    whole = reach(directions, anchors)
    assert whole.support.max() > 10
    assert whole.cosine.tolist() == pytest.approx(scipy_cosines(directions, anchors), abs=1e-9)
    monkeypatch.setattr(hull, "TOGETHER", 7)
    monkeypatch.setattr(hull, "origin", None)  # given, it is not looked for again
    where = origin(anchors)
    assert not where.inside
    assert reach(directions, 4 * anchors, where).cosine.tolist() == pytest.approx(whole.cosine.tolist(), abs=1e-9)


def test_directions_that_rounding_leaves_open_go_to_scipy(seeded, monkeypatch):
    anchors, directions = torch.randn(60, 9) + 1.5, torch.randn(20, 9)
    expected = reach(directions, anchors)
    assert expected.support.max() > 1
    monkeypatch.setattr(hull, "_settle", lambda index, weight, *_: (weight, torch.zeros(len(weight), dtype=torch.bool)))
    found = reach(directions, anchors)
    assert found.cosine.tolist() == pytest.approx(expected.cosine.tolist(), abs=1e-9)
    assert found.support.tolist() == expected.support.tolist()


def test_directions_that_are_none_of_the_anchors_are_refused():
    around = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert origin(around).vacuous
    with pytest.raises(ConfigError, match=r"directions: .*NaN"):
        reach(torch.full((2, 4), torch.nan), around)
