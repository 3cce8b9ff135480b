"""Planted dictionaries: sparse mixtures of known atoms are taken apart again, as far as the hull lets them."""

import pytest
import torch
from scipy import stats

from archsae_core.models.hull import origin, reach
from archsae_core.storage import Store
from archsae_study.experiments import identifiability
from archsae_study.experiments.identifiability import (
    LEARNERS,
    RECOVERED,
    Learner,
    learn,
    mean_share,
    plant,
    recovered,
)

TOPK = LEARNERS[0]
STEPS = 400


@pytest.fixture(scope="module")
def planted():
    return {case: plant(case, 0) for case in identifiability.CASES}


@pytest.fixture
def found(tmp_path):
    """Cosines of planted atoms after training."""
    return lambda planted, learner, steps=STEPS: recovered(planted, learn(planted, learner, 0, tmp_path, steps))


def share(cosine):
    return (cosine > RECOVERED).mean()


def strict(w_step, w_lr):
    return Learner("archetypal", "centroids", "", {"w_step": w_step, "w_lr": w_lr, "delta": 0.0})


def test_cases_are_what_they_say(planted):
    allowed = {case: share(reach(one.atoms, one.anchors).cosine.numpy()) for case, one in planted.items()}
    assert allowed["inside"] == 1
    assert allowed["centred"] == 1
    assert allowed["outside"] < 0.5
    centred = planted["centred"]
    assert origin(centred.anchors).vacuous
    x = (centred.samples(4096, 1) - centred.mean) * centred.scale
    assert x.square().sum(dim=1).mean().item() == pytest.approx(identifiability.D_MODEL, rel=0.05)
    with pytest.raises(KeyError, match="elsewhere"):
        plant("elsewhere", 0)


def test_a_random_start_is_not_the_planted_dictionary(planted, found):
    assert share(found(planted["centred"], TOPK, 1)) < 0.3


@pytest.mark.parametrize("case", ["inside", "outside", "centred"])
def test_free_dictionary_recovers_most_atoms_whatever_the_anchors(planted, found, case):
    assert share(found(planted[case], TOPK)) >= 0.8


@pytest.mark.parametrize("learner", [strict("mirror", 0.03), strict("published", 1e-4)], ids=["mirror", "published"])
def test_archetypal_dictionary_recovers_atoms_inside_the_hull(planted, found, learner):
    assert share(found(planted["inside"], learner)) >= 0.8


def test_no_training_exceeds_what_the_hull_allows(planted, found):
    case = planted["outside"]
    cosine = found(case, strict("mirror", 0.03))
    assert (cosine <= reach(case.atoms, case.anchors).cosine.numpy() + 1e-4).all()
    assert share(cosine) < 0.5


def test_a_hull_on_one_line_recovers_nothing(planted, found):
    """Negative control: with every anchor on one line, no atom has another direction, whatever W is."""
    case = planted["inside"]
    line = case._replace(anchors=torch.linspace(1.0, 3.0, 24)[:, None] * case.atoms[:1])
    assert share(found(line, strict("mirror", 0.03), 20)) <= 0.1


def test_mean_share_is_students():
    values = [0.45, 0.5, 0.55]
    found = mean_share(values)
    expected = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem(values))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.5, *expected))
    assert mean_share(values[:2]).low is None
    wide = mean_share([0.2, 0.4, 0.9])
    assert (wide.low, wide.high) == (0, 1)


def test_table_holds_every_case_and_learner(tmp_path, monkeypatch):
    found = identifiability.planted_table(Store(tmp_path), steps=2, seeds=3)
    monkeypatch.setattr(identifiability, "train", None)
    assert identifiability.planted_table(Store(tmp_path), steps=2, seeds=3) == found  # of what is kept
    assert [case.key for case in found.cases] == list(identifiability.CASES)
    assert [[row.label for row in case.rows] for case in found.cases] == [[one.label for one in LEARNERS]] * 3
    assert found.of("inside").allowed.estimate == 1
