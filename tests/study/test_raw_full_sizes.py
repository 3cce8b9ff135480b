"""g2 and g3 at the sizes of `full`: which runs, what is said of them, and what becomes of a run that diverges."""

import numpy as np
import pytest

from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments import controls, generality, raw_full_sizes
from archsae_study.experiments.generality import GeneralityResult
from archsae_study.experiments.stability import headline_matrix
from archsae_study.pages import stability as page
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import configure

SMALL_SIZES = {"n_features": 96, "k": 6, "n_anchors": 80}
"""In place of those of `full`, for which the made-up text is too short."""
LENGTHS = {"raw_full_size_steps": 15, "published_full_size_steps": 15}


@pytest.fixture(scope="module", autouse=True)
def sizes():
    with pytest.MonkeyPatch.context() as patch:
        for module in (generality, raw_full_sizes):
            patch.setattr(module, "FULL_SIZES", SMALL_SIZES)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    given = {"preset": "smoke", "n_seeds": 3, "anchor_folds": 3, "steps": 10, "arms": tuple(ARMS)}
    return Study(configure(given | LENGTHS), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(study):
    return raw_full_sizes.build(study)


def test_the_runs_are_those_of_both_contrasts_on_raw_data_which_share_topk(study):
    arms = ("raw-ra-own", "raw-topk-kmeans-own", "raw-ra-published-own")
    expected = [Run(arm, seed, 15, tuple(SMALL_SIZES.items())) for arm in arms for seed in range(3)]
    assert raw_full_sizes.runs(study) == expected
    assert {study.of(run).config.activations.frame for run in expected} == {"raw"}


def test_both_contrasts_are_decided_from_the_ends_of_the_runs(study, result):
    assert [[arm.arm for arm in one.arms] for one in result.settings] == [
        ["raw-ra-own", "raw-topk-kmeans-own"],
        ["raw-ra-published-own", "raw-topk-kmeans-own"],
    ]
    for arm in (arm for one in result.settings for arm in one.arms):
        runs = [Run(arm.arm, seed, 15, tuple(SMALL_SIZES.items())) for seed in range(3)]
        atoms = [snapshots(study.run_folder(run), 15)[15] for run in runs]
        assert np.allclose(arm.end.stability, headline_matrix(atoms))
    decided = [one for found in result.settings for one in found.decisions()]
    assert [one.contrast.key for one in decided if one.gain is not None] == ["g3", "g2"]


def test_they_stand_beside_the_other_settings(result):
    shown = page.generality_table(GeneralityResult([]).beside(result))
    assert shown.index.tolist() == ["raw, 96 features, k = 6, g3", "raw, published step, 96 features, k = 6, g2"]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        (dict.fromkeys(LENGTHS, 0), [f"`{name}` is 0" for name in LENGTHS]),
        ({"published_full_size_steps": 0}, ["", "`published_full_size_steps` is 0"]),
        (SMALL_SIZES, ["they are those of the study"] * 2),
    ],
)
def test_where_they_are_not_run_the_table_says_why(study, result, changes, reasons):
    found = raw_full_sizes.build(study.variant(**changes)).settings
    assert [one.setting.skipped for one in found] == reasons
    assert [bool(one.arms) for one in found] == [not reason for reason in reasons]


@pytest.fixture
def diverging(study, result, monkeypatch):
    """Lets every run of the published step diverge where something is changed, once `result` is there."""
    real = study.run_folder

    def run_folder(run):
        if run.arm == "raw-ra-published-own" and run.changes:
            raise TrainingDiverged("loss is nan at step 3: lower lr")
        return real(run)

    monkeypatch.setattr(study, "run_folder", run_folder)
    return study


def test_an_arm_of_which_a_run_diverges_is_left_out_with_the_reason_and_the_others_are_kept(diverging, result):
    g3, found = raw_full_sizes.build(diverging).settings
    assert g3 == result.settings[0]
    reason = "raw: RA-SAE, published step, own anchors diverged: loss is nan at step 3: lower lr"
    assert found.setting.skipped == reason
    assert found.arms == result.settings[1].arms[1:]
    assert reason in page.generality_table(GeneralityResult([found])).caption


def test_a_control_of_which_a_run_diverges_is_left_out_and_the_others_are_kept(diverging):
    """Three times the learning rate is a control: no report ends for it."""
    found = controls.build(diverging)
    reasons = {one.control.name: one.control.skipped for one in found.controls if one.control.skipped}
    assert list(reasons) == ["g2, learning rate 0.003 for both"]
    assert set(reasons.values()) == {"a run diverged: loss is nan at step 3: lower lr"}
    assert {flag.kind for run in found.checks.flagged for flag in run.flags} >= {"failed"}
