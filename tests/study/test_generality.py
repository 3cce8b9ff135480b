"""The comparison at another layer and with another k: what changes there, what stays, and what is said of it."""

from dataclasses import replace

import pytest

from archsae_core.models.snapshots import snapshots
from archsae_study.config import configure
from archsae_study.experiments import generality as robustness
from archsae_study.experiments.budgets import headline
from archsae_study.pages import sweep_prose
from archsae_study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure({"preset": "smoke", "n_seeds": 3, "steps": 20}), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def table(study):
    return robustness.robustness(study)


def test_each_setting_differs_in_one_thing(study):
    report, layer, k = robustness.settings(study).values()
    assert report is study
    assert (layer.config, k.config) == (study.config.changed(layer=0), study.config.changed(k=2))
    lowest = study.variant(layer=0, k=1)
    assert [other.config.language_model.layer for other in robustness.settings(lowest).values()] == [0, 1, 0]
    assert [other.config.dictionary.k for other in robustness.settings(lowest).values()] == [1, 1, 1]


def test_another_layer_reads_other_activations_of_the_same_text(study):
    other = study.variant(layer=0)
    assert other.source["layer"] == 0
    assert other.train_activations.kept.shape == study.train_activations.kept.shape
    assert not other.normalizer.mean.equal(study.normalizer.mean)


def test_the_step_is_one_that_the_main_runs_keep(study):
    assert robustness.last_step(study) == 20
    assert robustness.last_step(study.variant(steps=40)) == 10
    assert robustness.last_step(study.variant(steps=5000, ablation_steps=2000)) == 1000


def test_every_setting_has_every_arm_at_the_same_step(study, table):
    for row in table["settings"]:
        assert set(row["arms"]) == set(robustness.COMPARED)
        assert {arm["step"] for arm in row["arms"].values()} == {table["step"]}
    names = [row["setting"] for row in table["settings"]]
    assert names == ["layer 1, k 4", "layer 0", "k 2"]
    r2 = {row["arms"]["topk"]["r2"] for row in table["settings"]}
    assert len(r2) == 3


def test_the_report_s_own_row_is_that_of_its_runs(study, table):
    runs = [study.main_run("topk"), replace(study.main_run("topk"), seed=1), replace(study.main_run("topk"), seed=2)]
    atoms = [snapshots(study.run_folder(run), run.steps)[table["step"]] for run in runs]
    pairs = [headline(atoms[i], atoms[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert table["settings"][0]["arms"]["topk"]["stability"]["estimate"] == pytest.approx(sum(pairs) / 3)


def test_prose_says_whether_the_verdict_depends_on_the_setting(table):
    settings = [row | {"verdict": row["verdict"] | {"verdict": "supported"}} for row in table["settings"]]
    same = {"step": 10, "settings": settings}
    assert "the verdict is the same, *supported* in 3 settings" in sweep_prose.robustness(same)
    settings[1] = settings[1] | {"verdict": settings[1]["verdict"] | {"verdict": "undetermined"}}
    assert "the verdict depends on the setting" in sweep_prose.robustness(same)
    assert sweep_prose.robustness_table(same).count("\n") == 1 + 3 * len(robustness.COMPARED)
