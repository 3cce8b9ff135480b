"""Longer training of the arms of two contrasts: which runs, what is compared, what is said of it."""

import numpy as np
import pytest

from archsae_core.models.snapshots import snapshots
from archsae_study.engine.plan import report_runs
from archsae_study.engine.study import Study
from archsae_study.experiments import TABLES, longer
from archsae_study.experiments.longer import LongerArm, LongerResult
from archsae_study.experiments.stability import AtStep, headline_matrix
from archsae_study.pages import stability as page
from archsae_study.settings.config import configure

SMOKE = {"preset": "smoke", "n_seeds": 2, "steps": 10, "longer_factor": 3, "arms": "topk-kmeans-own,ra-own"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure(SMOKE), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(study):
    return longer.build(study)


def along(key, *scores, seeds=3):
    """An arm whose pairs of seeds have these scores, one a kept step."""
    off = 1 - np.eye(seeds)
    kept = [
        AtStep(10 * place, 1000 * place, [0.8] * seeds, [0.7] * seeds, (score * off).tolist())
        for place, score in enumerate(scores, start=1)
    ]
    return LongerArm(key, list(range(seeds)), kept)


def test_runs_are_longer_by_the_factor_and_the_first_of_the_report(study):
    runs = longer.runs(study.config)
    assert {(run.arm, run.seed) for run in runs} == {(arm, s) for arm in ("ra-own", "topk-kmeans-own") for s in (0, 1)}
    assert {run.steps for run in runs} == {30}
    assert report_runs(study, TABLES)[: len(runs)] == runs


def test_an_arm_has_five_seeds_at_most():
    runs = longer.runs(configure({"preset": "full"}))
    assert {arm: sum(run.arm == arm for run in runs) for arm in longer.COMPARED} == dict.fromkeys(longer.COMPARED, 5)
    assert {run.steps for run in runs} == {10_000}


@pytest.mark.parametrize("change", [{"longer_factor": 1}, {"arms": ("topk-random-own", "frozen-own")}])
def test_nothing_is_trained_where_nothing_is_asked_for(study, change):
    other = study.variant(**change)
    assert longer.runs(other.config) == []
    found = longer.build(other)
    assert found.arms == []
    assert "No run was trained for longer" in page.longer_table(found).data


def test_the_last_step_scores_the_ends_of_the_longer_runs(study, result):
    runs = longer.runs(study.config)
    for arm in result.arms:
        atoms = [snapshots(study.run_folder(run), 30)[30] for run in runs if run.arm == arm.arm]
        last = arm.trajectory[-1]
        assert (last.step, last.tokens) == (30, 30 * study.config.training.batch_size)
        assert np.allclose(last.stability, headline_matrix(atoms))


def test_steps_begin_at_a_tenth_of_the_study_s_own_length(result):
    assert [at.step for at in result.arms[0].trajectory] == [1, 3, 10, 30]


def test_the_rule_is_asked_at_the_end():
    result = LongerResult(3, [along("ra-own", 0.9, 0.6), along("topk-kmeans-own", 0.1, 0.5)])
    (decision,) = result.decisions()
    assert decision.contrast.key == "g1"
    assert decision.gain.estimate == pytest.approx(0.1)
    shown = page.longer_table(result)
    assert len(shown) == 1
    assert "+0.100" in shown["gain in stability"].iloc[0]


def test_the_figure_has_one_line_an_arm_in_both_panels():
    figure = page.longer_figure(LongerResult(3, [along("ra-own", 0.9, 0.6), along("raw-ra-own", 0.2, 0.3)]))
    for axis in figure.axes:
        assert [line.get_linestyle() for line in axis.lines] == ["-", "--"]
    assert [line.get_ydata()[-1] for line in figure.axes[0].lines] == pytest.approx([0.6, 0.3])
