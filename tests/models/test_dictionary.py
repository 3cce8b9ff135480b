"""The constraint of the archetypal dictionary, by hand and as properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsae_core.config import ConfigError
from archsae_core.models.dictionary import (
    ArchetypalDictionary,
    FreeDictionary,
    identity_weights,
    make_dictionary,
    random_weights,
)
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import configure

ANCHORS = torch.tensor([[3.0, 0.0], [0.0, 4.0]])


def by_hand(**options):
    dictionary = ArchetypalDictionary(ANCHORS, torch.tensor([[0.5, 0.5], [0.0, 1.0]]), delta=1.0, **options)
    with torch.no_grad():
        dictionary.relax.copy_(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
        dictionary.log_scale.fill_(0.0)
    return dictionary


def test_atoms_by_hand():
    expected = torch.tensor([[2.0, 1.0], [0.0, 4.0]])
    assert torch.allclose(by_hand(unit_norm=False).atoms(), expected)
    assert torch.allclose(by_hand(unit_norm=True).atoms(), expected / expected.norm(dim=1, keepdim=True))


def test_scale_multiplies_the_atoms():
    dictionary = by_hand(unit_norm=False, learn_scale=True)
    with torch.no_grad():
        dictionary.log_scale.fill_(torch.tensor(2.0).log())
    assert torch.allclose(dictionary.atoms(), torch.tensor([[4.0, 2.0], [0.0, 8.0]]))
    dictionary.atoms().sum().backward()
    assert float(dictionary.log_scale.grad) == pytest.approx(14.0)


def test_projection_by_hand():
    dictionary = by_hand()
    with torch.no_grad():
        dictionary.W.copy_(torch.tensor([[-1.0, 3.0], [-2.0, -1.0]]))
        dictionary.relax.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.5]]))
    dictionary.project_()
    assert dictionary.W.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert torch.allclose(dictionary.relax, torch.tensor([[0.6, 0.8], [0.0, 0.5]]), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 1e-3, 0.5, 5.0]), st.floats(1e-6, 1e3))
def test_projection_reaches_the_constraint_set_and_stays(seed, delta, size):
    generator = torch.Generator().manual_seed(seed)
    dictionary = ArchetypalDictionary(torch.randn(7, 5, generator=generator), torch.ones(9, 7) / 7, delta=delta)
    with torch.no_grad():
        dictionary.W.copy_(size * torch.randn(9, 7, generator=generator))
        dictionary.relax.copy_(size * torch.randn(9, 5, generator=generator))
    dictionary.project_()
    assert dictionary.violation() == 0.0
    once = dictionary.W.clone(), dictionary.relax.clone()
    dictionary.project_()
    assert torch.allclose(dictionary.W, once[0], atol=1e-6)
    assert torch.equal(dictionary.relax, once[1])


@pytest.mark.parametrize(
    ("name", "value"), [("W", torch.tensor([[-0.1, 1.1], [0.0, 1.0]])), ("W", torch.ones(2, 2)),
                        ("relax", torch.tensor([[1.0, 1.0], [0.0, 0.0]]))]
)  # fmt: skip
def test_violation_sees_each_broken_constraint(name, value):
    dictionary = by_hand()
    dictionary.project_()
    assert dictionary.violation() == 0.0
    with torch.no_grad():
        getattr(dictionary, name).copy_(value)
    assert dictionary.violation() > 0.05


def test_delta_zero_is_exactly_the_hull():
    dictionary = ArchetypalDictionary(ANCHORS, torch.tensor([[0.25, 0.75]]), delta=0.0, unit_norm=False)
    with torch.no_grad():
        dictionary.relax.add_(1.0)
    dictionary.project_()
    assert torch.allclose(dictionary.atoms(), dictionary.W @ ANCHORS, rtol=1e-6)
    assert torch.equal(dictionary.relax, torch.zeros(1, 2))


def test_reading_the_atoms_changes_no_parameter():
    dictionary = by_hand(unit_norm=False)
    with torch.no_grad():
        dictionary.W.copy_(torch.tensor([[-1.0, 3.0], [2.0, 1.0]]))
    before = {name: tensor.clone() for name, tensor in dictionary.state_dict().items()}
    dictionary.atoms()
    assert all(torch.equal(before[name], tensor) for name, tensor in dictionary.state_dict().items())


def test_free_dictionary_returns_to_the_sphere_and_frozen_stays():
    free, frozen = FreeDictionary(ANCHORS), FreeDictionary(ANCHORS, trainable=False)
    with torch.no_grad():
        free.D.mul_(3.0)
    free.project_()
    assert torch.allclose(free.atoms().norm(dim=1), torch.ones(2))
    assert not frozen.D.requires_grad


@pytest.mark.parametrize(("n_features", "n_anchors"), [(4, 4), (3, 6), (9, 4)])
@pytest.mark.parametrize("make", [identity_weights, random_weights])
def test_starting_weights_are_row_stochastic_and_distinct(make, n_features, n_anchors):
    weights = make(n_features, n_anchors, torch.Generator().manual_seed(0))
    assert torch.allclose(weights.sum(dim=1), torch.ones(n_features))
    assert (weights >= 0).all()
    if make is identity_weights:
        rows = min(n_features, n_anchors)
        assert torch.equal(weights[:rows], torch.eye(n_anchors)[:rows])


def test_arms_differ_between_seeds_only_where_they_say():
    config = configure({"preset": "smoke", "w_step": "published"})
    anchors = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    same, random = {}, {"topk-random-own", "topk-random-shared", "raw-topk-random-own", "ra-random-w"}
    for name, arm in ARMS.items():
        settings = (arm.dictionary, arm.start, anchors, config.dictionary, config.training)
        pair = [make_dictionary(*settings, torch.Generator().manual_seed(seed)).atoms() for seed in (0, 1)]
        same[name] = torch.equal(*pair)
    assert {name for name, equal in same.items() if not equal} == random


def test_archetypal_dictionary_from_anchors_starts_at_them():
    anchors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    published = ArchetypalDictionary.from_anchors(anchors, delta=0.5, smoothing=None, unit_norm=False)
    assert torch.equal(published.atoms().detach(), anchors)
    smoothed = ArchetypalDictionary.from_anchors(anchors, 20, smoothing=0.9)
    assert smoothed.atoms().shape == (20, 5)
    assert smoothed.W.min() > 0
    assert smoothed.violation() == 0
    expected = 0.1 * anchors + 0.9 * anchors.mean(dim=0)
    assert torch.allclose(smoothed.hull_points()[:12].detach(), expected, atol=1e-6)
    for wrong, field in (({"delta": -1.0}, "delta"), ({"smoothing": 1.0}, "smoothing")):
        with pytest.raises(ConfigError, match=f"{field} = "):
            ArchetypalDictionary.from_anchors(anchors, **wrong)


def test_random_dictionary_is_seeded():
    first, again, other = (FreeDictionary.random(6, 4, seed=seed).D for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [-1, True])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    """0.2 and 0.7 would be the same start twice, and two runs of them would agree."""
    anchors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="seed = "):
        FreeDictionary.random(6, 4, seed=seed)
    with pytest.raises(ConfigError, match="seed = "):
        ArchetypalDictionary.from_anchors(anchors, seed=seed)


def test_atoms_that_are_short_are_scaled_to_norm_1_too():
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = FreeDictionary(start).D.detach()
    short = start * torch.tensor([1e-13, 1.0, 1e-20, 1.0, 1e-30, 1.0])[:, None]
    found = FreeDictionary(short).D.detach()
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(found[1::2], expected[1::2])


def test_weights_that_are_no_numbers_violate_the_constraint():
    anchors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    for name in ("W", "relax"):
        dictionary = ArchetypalDictionary.from_anchors(anchors)
        assert dictionary.violation() == 0
        with torch.no_grad():
            getattr(dictionary, name)[3, 2] = torch.nan
        assert dictionary.violation() == torch.inf
