"""Longer training of the two arms that share nothing: which runs, what is compared, what is said of it."""

from itertools import chain, combinations

import numpy as np
import pytest

from archsae_core.models.snapshots import snapshots
from archsae_study.config import configure
from archsae_study.experiments import TABLES, longer, verdict
from archsae_study.experiments.budgets import at_equal_r2, headline
from archsae_study.pages import sweep_plots, sweep_prose
from archsae_study.plan import report_runs
from archsae_study.study import Study

SMOKE = {"preset": "smoke", "n_seeds": 3, "steps": 10, "longer_factor": 3}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure(SMOKE), tmp_path_factory.mktemp("runs"))


def kept(*points, n_seeds=4):
    """Rows of `budgets` whose pairs of seeds all have the same score: one for each (R², score)."""
    off_diagonal = 1 - np.eye(n_seeds)
    return [
        {
            "tokens": 1000 * (place + 1),
            "r2": r2,
            "pairs": (score * off_diagonal).tolist(),
            "stability": {"estimate": score, "low": score, "high": score},
        }
        for place, (r2, score) in enumerate(points)
    ]


@pytest.fixture
def table():
    points = ((0.7, 0.5), (0.8, 0.6)), ((0.7, 0.4), (0.79, 0.5))
    rows = {arm: kept(*found) for arm, found in zip(longer.COMPARED, points, strict=True)}
    return {
        "arms": {arm: {"label": arm, "budgets": found} for arm, found in rows.items()},
        "equal_r2": at_equal_r2(rows),
    }


def test_runs_are_longer_by_the_factor_and_the_first_of_the_report(study):
    runs = list(chain(*longer.longer_runs(study).values()))
    assert {(run.arm, run.seed) for run in runs} == {(arm, seed) for arm in longer.COMPARED for seed in range(3)}
    assert {run.steps for run in runs} == {30}
    assert [run for _, run in report_runs(study, TABLES)][: len(runs)] == runs


@pytest.mark.parametrize("change", [{"longer_factor": 1}, {"arms": ("topk", "ra", "ra-indep-anchors")}])
def test_nothing_is_trained_where_nothing_is_asked_for(study, change):
    other = study.variant(**change)
    assert longer.longer_runs(other) == {}
    found = longer.longer_table(other)
    assert found == {"arms": {}, "equal_r2": []}
    assert "longer_factor" in sweep_prose.longer(found)


def test_the_last_row_scores_the_ends_of_the_longer_runs(study):
    table = longer.longer_table(study)
    for arm, runs in longer.longer_runs(study).items():
        atoms = [snapshots(study.run_folder(run), 30)[30] for run in runs]
        expected = [headline(a, b) for a, b in combinations(atoms, 2)]
        last = table["arms"][arm]["budgets"][-1]
        assert last["tokens"] == 30 * study.config.training.batch_size
        assert last["stability"]["estimate"] == pytest.approx(np.mean(expected))


def test_the_gain_after_every_budget_is_that_of_the_first_arm(table):
    rows = verdict.gain_by_budget(table["arms"])
    assert [row["tokens"] for row in rows] == [1000, 2000]
    assert [row["gain"]["estimate"] for row in rows] == pytest.approx([0.1, 0.1])


def test_prose_and_tables_say_what_is_gained(table):
    text = sweep_prose.longer(table)
    assert "**After 2,000 tokens, ra-indep-anchors gains 0.100 [0.100, 0.100] over topk-kmeans-indep.**" in text
    assert "| ra-indep-anchors | 0.700 · +0.500 | 0.800 · +0.600 |" in text
    assert "| 0.790 |" in text


@pytest.mark.parametrize("asked", [True, False])
def test_the_figure_shows_the_longer_runs_where_there_are_any(table, asked):
    arms = {arm: {"budgets": kept((0.8, 0.5), (0.8, 0.6))} for arm in ("ra", "topk", *longer.COMPARED)}
    figure = sweep_plots.gains({"arms": arms}, table if asked else {"arms": {}})
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert ("independent runs, trained for longer" in labels) == asked
