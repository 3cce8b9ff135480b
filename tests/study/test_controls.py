"""Controls of the contrasts: which runs each compares, and what is said of them."""

import re

import numpy as np
import pytest

from archsae_core.models.snapshots import snapshots
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments import controls
from archsae_study.experiments.stability import StabilityResult, arm_result, headline_matrix
from archsae_study.protocol.arms import ARMS, CHOSEN
from archsae_study.settings.config import configure

SMOKE = {"preset": "smoke", "n_seeds": 2, "steps": 10, "ablation_steps": 5, "anchor_folds": 3}
SMALL_SIZES = {"n_features": 96, "k": 6, "n_anchors": 80, "anchor_tokens": 700}
"""In place of those of `full`, for which the made-up text is too short."""


@pytest.fixture(scope="module", autouse=True)
def sizes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "FULL_SIZES", SMALL_SIZES)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    given = SMOKE | {"arms": tuple(ARMS), "n_anchors": 64}
    return Study(configure(given), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(study):
    return controls.build(study)


@pytest.fixture(scope="module")
def arms(study):
    """What the table of stability says of the arms that are held against, as they are."""
    named = {side.arm for one in made(study) for side in (one.first, one.second) if not side.changes}
    return StabilityResult([arm_result(study, arm_runs(study.config, arm), {}) for arm in sorted(named)], [])


def test_every_control_changes_what_its_name_says(study):
    raw, more = {"frame": "raw"} | CHOSEN["raw"], {"n_anchors": 256}
    keys = ("g1", "g2", "g3")
    expected = [(f"{key}, learning rate 0.003 for both", {"lr": 0.003}, {"lr": 0.003}, 10) for key in keys]
    expected += [(f"{key}, 256 anchors for RA-SAE", more, {}, 10) for key in ("g1", "g3")]
    for name in ("anchors that are no data", "one random start for all"):
        expected += [(f"centred, {name}", {}, {}, 10), (f"raw, {name}", raw, {}, 10)]
    expected.append(("raw, random W, shared anchors", raw, {}, 10))
    assert [(one.name, one.first.changes, one.second.changes, one.steps) for one in made(study)] == [
        (name, pytest.approx(first), pytest.approx(second), steps) if "rate" in name else (name, first, second, steps)
        for name, first, second, steps in expected
    ]


def test_more_anchors_are_made_of_as_many_activations_as_those_of_full(study):
    of = {limit: made(study.variant(anchor_tokens=limit)) for limit in (600, 800)}
    changes = [one.first.changes["anchor_tokens"] for found in of.values() for one in found if one.kind == "anchors"]
    assert changes == [700] * 2 + [800] * 2


def made(study):
    return controls.controls(study)


def test_a_control_on_raw_data_trains_there(study):
    (control,) = [one for one in made(study) if one.name == "raw, anchors that are no data"]
    run, *_ = controls.side_runs(study, control, control.first)
    own, centred = study.of(run).config, Run("ra-random-anchors", 0, 10)
    assert (own.activations.frame, own.dictionary.smoothing) == ("raw", CHOSEN["raw"]["smoothing"])
    assert control.first.title == "raw: RA-SAE, random anchors (no data)"
    assert study.run_key(run) != study.run_key(centred)


def test_what_the_study_trains_is_not_trained_again(study):
    of_study = {study.run_key(run) for arm in ARMS for run in arm_runs(study.config, arm)}
    assert not of_study & {study.run_key(run) for run in controls.runs(study)}
    trained = {(one.name, side.arm) for one in made(study) for side in (one.first, one.second) if side.changes}
    assert ("g1, 256 anchors for RA-SAE", "topk-kmeans-own") not in trained
    assert not [name for name, _ in trained if name.startswith("centred")]


@pytest.mark.parametrize(
    ("changes", "kinds", "reason"),
    [
        ({"other_settings": False}, {"rate", "anchors", "no_data", "start", "random_w"}, "`other_settings` is False"),
        ({"anchor_folds": 500}, {"anchors"}, r"256 centroids of \d+ activations in each part of the documents"),
        ({"arms": ("topk-random-own", "topk-random-shared")}, {"no_data"}, "ra-random-anchors.* not among `arms`"),
    ],
)
def test_what_is_left_out_says_why(study, changes, kinds, reason):
    own = study.variant(**changes)
    assert {one.kind for one in made(own)} >= kinds
    for one in made(own):
        if one.kind in kinds:
            assert re.fullmatch(reason, one.skipped), (one.name, one.skipped)
            assert controls.side_runs(own, one, one.first) == controls.side_runs(own, one, one.second) == []


def test_a_control_needs_no_arm_but_its_own(study):
    own = study.variant(arms=("raw-topk-random-own", "topk-random-shared"))
    assert [one.name for one in made(own) if not one.skipped] == ["raw, one random start for all"]
    assert {run.arm for run in controls.runs(own)} == {"topk-random-shared"}


def test_each_side_is_scored_at_the_end_of_its_own_runs(study, result, arms):
    assert [one.control for one in result.controls] == made(study)
    for one in result.controls:
        for side, found in zip((one.control.first, one.control.second), one.sides(arms), strict=True):
            runs = [Run(side.arm, seed, one.control.steps, tuple(side.changes.items())) for seed in range(2)]
            atoms = [snapshots(study.run_folder(run), run.steps)[run.steps] for run in runs]
            assert np.allclose(found.end.stability, headline_matrix(atoms)), (one.control.name, side)
            starts = [snapshots(study.run_folder(run), run.steps)[0] for run in runs]
            assert np.allclose(found.start, headline_matrix(starts)), (one.control.name, side)
            assert found.end.r2 == pytest.approx([study.scores(run).quality.r2 for run in runs], abs=0.01)


def test_every_run_is_checked(study, result):
    assert result.checks.runs == len({study.run_key(run) for run in controls.runs(study)})


def test_two_seeds_have_no_interval(result, arms):
    decisions = [one.decision(arms) for one in result.controls]
    assert len(decisions) == 10
    assert not [one for one in decisions if one.gain is not None]
    assert result.of("rate", arms) == []
