"""The comparison at another layer and with another k: which settings, which runs, and what is said of them."""

import re
from itertools import combinations

import numpy as np
import pytest
import torch

from archsae_core.metrics.intervals import pair_matrix
from archsae_core.models.snapshots import snapshots
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments import generality
from archsae_study.experiments.anchor_alignment import AlignmentResult
from archsae_study.experiments.generality import GeneralityResult, Setting, SettingArm, SettingResult
from archsae_study.experiments.stability import AtStep, headline_matrix
from archsae_study.pages import stability as page
from archsae_study.settings.config import FULL_SIZES, ConfigError, configure

SMOKE = {"preset": "smoke", "n_seeds": 2, "steps": 20, "ablation_steps": 10, "arms": "topk-kmeans-own,ra-own"}
SMALL_SIZES = {"n_features": 96, "k": 6, "n_anchors": 80}
"""In place of those of `full`, for which the made-up text is too short."""


@pytest.fixture(scope="module", autouse=True)
def sizes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generality, "FULL_SIZES", SMALL_SIZES)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory, second_model):
    others = {"full_size_steps": 15, "other_model": second_model, "other_model_layer": 2}
    return Study(configure(SMOKE | others), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(study):
    return generality.build(study)


def test_layer_and_k_differ_in_one_thing_and_the_published_sizes_in_all(study):
    found = [(one.changes, one.steps, one.skipped) for one in generality.settings(study)]
    expected = [({}, 10), ({"layer": 0}, 10), ({"k": 2}, 10), ({"delta": 0.0}, 20)]
    expected += [({"smoothing": 0.9}, 20), (SMALL_SIZES, 15)]
    expected.append(({"model": study.config["other_model"], "layer": 2}, 20))
    assert found == [(*one, "") for one in expected]


def test_a_second_model_that_cannot_be_used_is_refused_by_name(study):
    with pytest.raises(ConfigError, match=r"other_model = .*other_model_layer = 3: the model has 3 blocks: use 0 … 2"):
        study.variant(other_model_layer=3).check()
    with pytest.raises(ConfigError, match="other_model = 'no/such': "):
        study.variant(other_model="no/such").check()
    with pytest.raises(ConfigError, match=r"other_model = 'random-gpt2': .* it is the study's own model"):
        study.variant(other_model="random-gpt2").check()
    study.check()


def test_a_study_has_no_second_model_unless_it_names_one(study):
    *_, other = generality.settings(study.variant(other_model=None))
    assert other.skipped == "`other_model` is not set"
    assert generality.setting_runs(study.variant(other_model=None), other) == []


def test_free_runs_are_not_repeated_for_another_radius(study):
    (hull,) = [one for one in generality.settings(study) if "delta" in one.changes]
    of_study = {study.run_key(run) for run in arm_runs(study.config, "topk-kmeans-own")}
    repeated = {study.run_key(run): run.arm for run in generality.setting_runs(study, hull)}
    assert {arm for key, arm in repeated.items() if key not in of_study} == {"ra-own"}
    assert of_study < repeated.keys()


def test_w_is_spread_over_the_anchors_on_raw_data_only(study):
    """Where the hull excludes most directions: with the step chosen there, atoms stay at their centroids."""
    own = study.variant(arms=("ra-own", "topk-kmeans-own", "raw-ra-own", "raw-topk-kmeans-own"))
    (spread,) = [one for one in generality.settings(own) if "smoothing" in one.changes]
    runs = generality.setting_runs(own, spread)
    assert {run.arm for run in runs} == {"raw-ra-own", "raw-topk-kmeans-own"}
    of_study = {own.run_key(run) for arm in own.config.comparison.arms for run in arm_runs(own.config, arm)}
    assert {run.arm for run in runs if own.run_key(run) not in of_study} == {"raw-ra-own"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"full_size_steps": 0}, "`full_size_steps` is 0"),
        (SMALL_SIZES, "they are those of the study"),
        ({"anchor_folds": 5000}, r"80 centroids of \d+ activations in each part of the documents"),
    ],
)
def test_published_sizes_that_are_not_run_say_why(study, changes, reason):
    *_, sizes, _ = generality.settings(study.variant(**changes))
    assert re.fullmatch(reason, sizes.skipped)
    assert generality.setting_runs(study.variant(**changes), sizes) == []


def test_full_is_of_the_published_sizes():
    assert all(configure({"preset": "full"})[name] == value for name, value in FULL_SIZES.items())


def test_the_lowest_layer_is_compared_with_the_next_and_k_of_1_with_nothing(study):
    _, layer, k, hull, *_ = generality.settings(study.variant(layer=0, k=1, delta=0.0))
    assert layer.changes == {"layer": 1}
    assert k.skipped == "half of k = 1 is no number of codes"
    assert hull.skipped == "it is the study's own"
    assert generality.setting_runs(study, k) == []


def test_a_study_can_leave_the_other_layer_and_k_out(study):
    found = [one.skipped for one in generality.settings(study.variant(other_settings=False))]
    assert found == [*["`other_settings` is False"] * 5, "", ""]


def test_another_layer_reads_other_activations_of_the_same_text(study):
    other = study.variant(layer=0)
    assert other.source["layer"] == 0
    assert other.train_activations.kept.shape == study.train_activations.kept.shape
    assert not other.normalizer.mean.equal(study.normalizer.mean)


def test_runs_are_those_of_the_contrasts_that_the_study_has(study):
    _, layer, *_ = generality.settings(study)
    expected = {Run(arm, seed, 10, (("layer", 0),)) for arm in ("ra-own", "topk-kmeans-own") for seed in (0, 1)}
    assert set(generality.setting_runs(study, layer)) == expected
    assert len(generality.runs(study)) == 24


def test_every_setting_scores_the_ends_of_its_own_runs(study, result):
    names = [one.setting.name for one in result.settings]
    assert names == [
        "as in the study",
        "layer 0",
        "k = 2",
        "δ = 0, the hull alone",
        "W spread over anchors (smoothing 0.9)",
        "96 features, k = 6",
        "tiny, layer 2",
    ]
    for one in result.settings:
        for arm in one.arms:
            steps = one.setting.steps
            runs = [Run(arm.arm, seed, steps, tuple(one.setting.changes.items())) for seed in arm.seeds]
            atoms = [snapshots(study.run_folder(run), steps)[steps] for run in runs]
            assert np.allclose(arm.end.stability, headline_matrix(atoms)), (one.setting.name, arm.arm)
            # on all held-out tokens here, of the model as it was kept
            assert arm.end.r2 == pytest.approx([study.scores(run).quality.r2 for run in runs], abs=0.01)
            for first, second in combinations([one for one in result.settings if one.arms], 2):
                assert first.arms[0].end.r2 != second.arms[0].end.r2


def test_the_rule_is_asked_of_the_contrasts_whose_arms_were_run(result):
    for one in result.settings:
        expected = [] if "smoothing" in one.setting.changes else ["g1"]  # the arms of g3 are not in this study
        assert [decision.contrast.key for decision in one.decisions()] == expected


def test_what_is_found_at_the_sizes_of_full_and_on_another_model_is_said(result):
    none = AlignmentResult([])
    assert page._elsewhere(result, none) == []  # two seeds give no interval

    def of_three(one):
        levels = {"ra-own": (0.7, 0.55, [0.5, 0.5, 0.6]), "topk-kmeans-own": (0.5, 0.5, [1.0] * 3)}
        arms = [
            SettingArm(arm.arm, [0, 1, 2], made_up(level), made_up(merged).stability, distinct, [0.4] * 3, 0.3)
            for arm in one.arms
            for level, merged, distinct in [levels[arm.arm]]
        ]
        return SettingResult(one.setting, arms)

    found = page._elsewhere(GeneralityResult([of_three(one) for one in result.settings]), none)
    assert [(one["where"], one["setting"].name, one["seeds"]) for one in found] == [
        ("At the sizes of the full protocol", "96 features, k = 6", 3),
        ("On a second language model", "tiny, layer 2", 3),
    ]
    for one in found:
        assert [round(decision.gain.estimate, 3) for decision in one["decisions"]] == [0.2]
        assert one["collapsed"]["g1"]["distinct"] == pytest.approx(1.6 / 3)
        assert one["merged"]["g1"].gain.estimate == pytest.approx(0.05)


def test_atoms_along_the_first_direction_are_counted(study, result):
    (setting,) = [one for one in result.settings if one.setting.name == "as in the study"]
    heldout = study.heldout_activations
    x = study.normalizer.normalize(heldout.gather(torch.as_tensor(heldout.kept)))
    spread = torch.linalg.eigvalsh(torch.cov(x.T))
    for arm in setting.arms:
        # of the first kept tokens, not of all
        assert arm.first_variance == pytest.approx(float(spread[-1] / spread.sum()), abs=0.05)
        assert all(0 <= share <= 1 for share in arm.along_first)
    direction, _ = generality._first_direction(study)
    assert float(direction.norm()) == pytest.approx(1, abs=1e-4)


def test_a_score_is_given_without_copies_where_many_atoms_are_some(result):
    (setting,) = [one for one in result.settings if one.setting.name == "as in the study"]
    assert [page._collapsed(setting, decision) for decision in setting.decisions()] == [None]
    for arm in setting.arms:
        assert all(0.9 < share <= 1 for share in arm.distinct)
        assert np.shape(arm.collapse_corrected) == (2, 2)


def made_up(level):
    """Three seeds of an arm that agree to about `level`."""
    pairs = {(0, 1): level - 0.01, (0, 2): level, (1, 2): level + 0.01}
    return AtStep(20, 2560, [0.5, 0.51, 0.52], [0.6, 0.6, 0.6], pair_matrix(pairs, 3).tolist())


def test_a_setting_that_was_left_out_says_why(result):
    left_out = SettingResult(Setting("layer 1", {"layer": 1}, 10, [], 3, "the model has 1 block"), [])
    shown = page.generality_table(GeneralityResult([*result.settings, left_out]))
    assert list(shown.index) == [f"{one.setting.name}, g1" for one in result.settings if one.arms]
    assert shown.caption.endswith("Left out: layer 1, the model has 1 block.")
