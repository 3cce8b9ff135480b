"""The ablation's runs that are the first part of a longer run: trained once, the same files, told in the estimate."""

from dataclasses import replace

import pytest

from archsae_core.models.training import CHECKPOINT
from archsae_core.storage import PARTIAL, read_json
from archsae_study import estimate
from archsae_study.config import configure
from archsae_study.runs import Run, passed
from archsae_study.study import Study

CONFIG = configure({"preset": "smoke"})
LONG = Run("ra", 0, CONFIG.training.steps, CONFIG.dictionary.delta)
SHORT = replace(LONG, steps=CONFIG.comparison.ablation_steps)


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    """A store in which the shorter run was trained by itself."""
    study = Study(CONFIG, tmp_path_factory.mktemp("separate"))
    study.run_folder(SHORT)
    return study


@pytest.mark.parametrize(
    ("run", "shorter"),
    [
        (LONG, SHORT),
        (SHORT, None),
        (replace(LONG, steps=3 * CONFIG.training.steps), LONG),
        (replace(LONG, seed=CONFIG.comparison.ablation_seeds), None),
        (replace(LONG, delta=0.123), None),
        (replace(LONG, arm="ra-random-w"), None),
        (replace(LONG, arm="frozen"), replace(SHORT, arm="frozen")),
    ],
)
def test_only_runs_of_the_report_are_left_on_the_way(run, shorter):
    assert passed(run, CONFIG) == shorter


def test_a_longer_run_leaves_the_shorter_one_which_then_equals_one_trained_by_itself(separate, tmp_path):
    study = Study(CONFIG, tmp_path)
    study.run_folder(LONG)
    folder = study.store.path("runs", study.run_recipe(SHORT))
    left = folder.with_name(folder.name + PARTIAL)
    assert (left / CHECKPOINT).exists()
    written = (left / CHECKPOINT).read_bytes()
    Study(CONFIG, tmp_path).store.begin("runs", study.run_recipe(SHORT), lambda work: pytest.fail("begun twice"))
    assert (left / CHECKPOINT).read_bytes() == written
    files = [read_json(own.run_folder(SHORT) / "manifest.json")["files"] for own in (separate, study)]
    assert files[0] == files[1]
    study.store.begin("runs", study.run_recipe(SHORT), lambda work: pytest.fail("begun though it is made"))


def test_a_run_that_left_a_broken_beginning_is_no_obstacle(separate, tmp_path):
    study = Study(CONFIG, tmp_path)
    recipe = study.run_recipe(SHORT)

    def broken(work):
        (work / CHECKPOINT).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.store.begin("runs", recipe, broken)
    study.run_folder(LONG)
    assert (
        read_json(study.run_folder(SHORT) / "manifest.json")["files"]
        == (read_json(separate.run_folder(SHORT) / "manifest.json")["files"])
    )
    assert not list(study.root.glob(f"store/runs/*{PARTIAL}"))


@pytest.mark.parametrize("arm", ["ra", "topk", "topk-kmeans"])
def test_a_shorter_run_on_the_way_of_a_longer_one_costs_its_scoring_alone(tmp_path, arm):
    def cost(length, **changes):
        study = Study(CONFIG.changed(**changes), tmp_path)
        stages = {stage.folder: stage.flops for stage in estimate.estimate(study).stages}
        return stages[study.store.path("runs", study.run_recipe(replace(LONG, arm=arm, steps=length)))]

    scoring = 2 * cost(20, steps=20) - cost(40)
    assert cost(20) == pytest.approx(scoring)
