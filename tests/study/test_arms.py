"""The arms are those of the protocol, and every contrast and square names arms that there are."""

import pytest

from archsae_core.config import FRAMES
from archsae_study.experiments.w_steps import WAYS
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS, CHOSEN, PUBLISHED, main_arms, sweep_arm, sweep_references
from archsae_study.settings.config import PRESETS, configure

PROTOCOL = {
    ("centred", "free", "random", "none", True): 5,
    ("centred", "free", "random", "none", False): 3,
    ("centred", "free", "centroids", "kmeans", True): 8,
    ("centred", "free", "centroids", "kmeans", False): 3,
    ("centred", "archetypal", "centroids", "kmeans", True): 8,
    ("centred", "archetypal", "centroids", "kmeans", False): 5,
    ("centred", "archetypal", "random-w", "kmeans", False): 3,
    ("centred", "archetypal", "centroids", "random", True): 3,
    ("centred", "frozen", "centroids", "kmeans", True): 3,
    ("centred", "frozen", "centroids", "kmeans", False): 3,
    ("raw", "free", "random", "none", True): 5,
    ("raw", "free", "centroids", "kmeans", True): 8,
    ("raw", "free", "centroids", "kmeans", False): 3,
    ("raw", "frozen", "centroids", "kmeans", True): 3,
    ("raw", "frozen", "centroids", "kmeans", False): 3,
}
"""Seeds of each arm as the protocol fixes them, but for the four archetypal arms of the raw frame."""
RAW = {"raw-ra-own": 8, "raw-ra-shared": 3, "raw-ra-published-own": 8, "raw-ra-published-shared": 5}


def kind(arm):
    return arm.frame, arm.dictionary, arm.start, arm.anchors, arm.own


def test_arms_and_their_seeds_are_those_of_the_protocol():
    assert {kind(arm): arm.seeds for key, arm in ARMS.items() if key not in RAW} == PROTOCOL
    assert {key: ARMS[key].seeds for key in RAW} == RAW
    assert len(ARMS) == len(PROTOCOL) + len(RAW)
    assert all(ARMS[key].frame == "raw" for key in RAW)


def test_as_published_is_the_published_step_with_free_norms_and_radius_1():
    for key in ("raw-ra-published-own", "raw-ra-published-shared"):
        assert ARMS[key].parameters == {"frame": "raw", "delta": 1.0} | dict(PUBLISHED)
    assert PUBLISHED == {"w_step": "published", "w_lr": None, "unit_norm": False, "learn_scale": True}


@pytest.mark.parametrize("contrast", contrasts.PRIMARY, ids=lambda one: one.key)
def test_contrasts_name_arms_of_their_frame_that_start_from_own_centroids(contrast):
    ra, free = ARMS[contrast.ra], ARMS[contrast.free]
    assert (ra.dictionary, free.dictionary) == ("archetypal", "free")
    assert {ra.frame, free.frame} == {contrast.frame}
    assert ra.own
    assert free.own
    assert (ra.start, free.start) == ("centroids", "centroids")
    shared, random = (ARMS[arm] for arm in contrast.published)
    assert (shared.dictionary, shared.own, random.start, random.own) == ("archetypal", False, "random", True)


@pytest.mark.parametrize("square", contrasts.SQUARES, ids=lambda one: one.key)
def test_squares_cross_start_and_dictionary(square):
    for (start, dictionary), key in square.arms.items():
        assert (ARMS[key].own, ARMS[key].dictionary) == (start == contrasts.OWN, dictionary)


def test_the_way_in_use_is_one_of_those_that_are_tried():
    for frame in FRAMES:
        assert dict(CHOSEN[frame]) in [way.settings for way in WAYS]


def test_other_names_of_arms_lead_to_arms():
    for frame in FRAMES:
        named = [*main_arms(frame).values(), sweep_arm(frame), *sweep_references(frame)]
        assert {ARMS[key].frame for key in named} == {frame}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_arms_of_every_contrast(preset):
    arms = set(configure({"preset": preset})["arms"])
    # quick is short: it leaves out the published comparison, of which the gain is said to be a share
    needed = [(one.ra, one.free) if preset == "quick" else one.arms for one in contrasts.PRIMARY]
    assert {arm for of_contrast in needed for arm in of_contrast} <= arms
