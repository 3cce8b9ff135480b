"""What a run is determined by: the study finds its variant, and runs share what they can."""

import pytest
import torch

from archsae_core.models import training
from archsae_core.models.sae import structure
from archsae_study.engine.runs import Run, arm_runs, sweep_runs
from archsae_study.engine.study import Study
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import ConfigError, configure

SMOKE = {"preset": "smoke", "anchor_folds": 3}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure(SMOKE), tmp_path_factory.mktemp("runs"))


def test_a_run_s_study_has_the_parameters_of_its_arm_and_of_its_changes(study):
    own = study.of(Run("raw-ra-published-own", 0, 7, (("delta", 0.5), ("layer", 0))))
    names = ("frame", "w_step", "unit_norm", "learn_scale", "delta", "layer", "steps")
    found = {name: own.config[name] for name in names}
    assert list(found.values()) == ["raw", "published", False, True, 0.5, 0, 7]


def test_the_same_changes_give_the_same_study_and_none_give_this_one(study):
    assert study.variant(layer=0) is study.variant(layer=0)
    assert study.variant(layer=study.config["layer"]) is study
    assert study.variant(frame="raw").variant(frame="centred") is study


def test_variants_share_text_model_and_activations_whoever_asks_first(tmp_path):
    study = Study(configure(SMOKE), tmp_path)
    raw, other = study.variant(frame="raw", steps=7), study.variant(layer=0)
    assert raw.train_activations is study.train_activations
    assert other.train_activations is not study.train_activations
    assert other.variant(frame="raw").train_activations is other.train_activations
    assert other.model is raw.model is study.model


def test_another_language_model_is_loaded_once_and_reads_the_same_text(tmp_path, second_model):
    study = Study(configure(SMOKE), tmp_path)
    other = study.variant(model=second_model, layer=2)
    raw = other.variant(frame="raw")
    assert raw.model is other.model is not study.model
    assert raw.corpus is study.corpus
    assert raw.train_activations is other.train_activations
    sources = study.source, other.source
    assert {name for name in sources[0] if sources[0][name] != sources[1][name]} == {"model", "model_hash", "layer"}
    assert study.variant(layer=0).model is study.model


def test_what_a_model_is_read_with_is_no_variant(study):
    for name, value in (("context", 16), ("text", "bbc-news"), ("dtype", "bfloat16")):
        with pytest.raises(ValueError, match=f"{name}: another text or way to read it is another study"):
            study.variant(**{name: value})


def test_runs_share_what_they_can_and_nothing_else(study):
    keys = {name: study.run_key(run) for name, run in {
        "free": Run("topk-kmeans-own", 0, 40), "free, other radius": Run("topk-kmeans-own", 0, 40, (("delta", 0.0),)),
        "ra": Run("ra-own", 0, 40), "ra, its own radius named": Run("ra-own", 0, 40, (("delta", 1.0),)),
        "ra, other radius": Run("ra-own", 0, 40, (("delta", 0.0),)), "ra, other seed": Run("ra-own", 1, 40),
        "ra, shared": Run("ra-shared", 0, 40), "ra, longer": Run("ra-own", 0, 41), "raw": Run("raw-ra-own", 0, 40),
    }.items()}  # fmt: skip
    assert keys["free"] == keys["free, other radius"]
    assert keys["ra"] == keys["ra, its own radius named"]
    assert len(set(keys.values())) == len(keys) - 2


def test_anchors_are_of_equally_many_tokens_whatever_the_seeds(study):
    sizes = {len(study._anchor_rows(fold)) for fold in (None, 0, 1, 2)}
    assert len(sizes) == 1
    assert study.variant(n_seeds=3).anchor_recipe(1) == study.anchor_recipe(1)
    documents = [set(study.train_activations.document[study._anchor_rows(fold)].tolist()) for fold in (0, 1, 2)]
    assert not (documents[0] & documents[1] | documents[0] & documents[2] | documents[1] & documents[2])


def test_shared_starts_are_one_start_and_own_ones_are_not(study):
    def atoms(arm, seed):
        return study.untrained(Run(arm, seed, 40)).atoms().detach()

    for arm in ("topk-random-shared", "topk-kmeans-shared", "ra-shared"):
        assert torch.equal(atoms(arm, 0), atoms(arm, 1)), arm
    for arm in ("topk-random-own", "topk-kmeans-own", "ra-own", "ra-random-w", "ra-random-anchors"):
        assert not torch.equal(atoms(arm, 0), atoms(arm, 1)), arm


def test_random_anchors_are_no_data_but_as_long_as_centroids(study):
    generator = torch.Generator().manual_seed(3)
    points = study.starting_points(Run("ra-random-anchors", 3, 40), generator)
    assert points.norm(dim=1).min() == pytest.approx(float(study.anchors().norm(dim=1).median()), rel=1e-4)
    cosines = torch.nn.functional.normalize(points, dim=1) @ torch.nn.functional.normalize(study.anchors(), dim=1).T
    assert cosines.amax(dim=1).median() < 0.8


def test_an_arm_has_its_own_seeds_and_no_more_than_the_study():
    config = configure({"preset": "full"})
    assert [len(arm_runs(config, arm)) for arm in ("ra-own", "ra-shared", "frozen-own")] == [8, 5, 3]
    assert len(arm_runs(config.changed(n_seeds=4), "ra-own")) == 4
    assert {run.steps for run in sweep_runs(config, "ra-own", {"delta": 2.0})} == {config["ablation_steps"]}


def test_more_seeds_than_folds_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"n_seeds = 4: at most anchor_folds = 3"):
        Study(configure(SMOKE | {"n_seeds": 4}), tmp_path).check()


def test_the_main_dictionary_follows_the_parameters_and_the_arms_of_05_do_not(study):
    other = study.variant(delta=0.25, smoothing=0.5)
    assert dict(other.main_run("ra").changes) == {"delta": 0.25, "smoothing": 0.5}
    assert other.of(other.main_run("ra")).config["smoothing"] == 0.5
    assert other.of(Run("ra-own", 0, 40)).config["smoothing"] == 0.9
    assert other.main_run("topk").changes == ()


def test_what_another_version_began_is_trained_anew_and_said(study, monkeypatch):
    """Its steps cannot be continued: the user would have to find and delete it in the store."""
    run = Run("topk-kmeans-own", 0, 45)

    def killed(trainer, *given):
        keep(trainer, *given)
        if trainer.step == 25:
            raise KeyboardInterrupt

    keep = training._keep
    with monkeypatch.context() as patch:
        patch.setattr(training, "_keep", killed)
        patch.setattr(training, "_origin", lambda *given: "another version's")
        with pytest.raises(KeyboardInterrupt):
            study.run_folder(run)
    (partial,) = study.store.root.glob("runs/*.partial")
    assert (partial / training.CHECKPOINT).exists()
    with pytest.warns(UserWarning, match="topk-kmeans-own, seed 0, 45 steps.*: begun by another version .* anew"):
        folder = study.run_folder(run)
    fresh = Study(study.config, study.root.parent / "fresh")
    assert (folder / "sae.safetensors").read_bytes() == (fresh.run_folder(run) / "sae.safetensors").read_bytes()
    assert not partial.exists()


CHANGES = [
    {"n_anchors": 16},
    {"kmeans_iterations": 1},
    {"anchor_tokens": 100},
    {"delta": 0.5},
    {"n_features": 40},
    {"k": 3},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_run_that_starts_otherwise_has_another_key(study, change):
    """Or the store would show a dictionary of other parameters."""
    other = Study(study.config.changed(**change), study.root)
    for arm in ARMS:
        run = Run(arm, 0, 45)
        one, two = study.untrained(run), other.untrained(run)
        tensors = [{name: value.tolist() for name, value in sae.state_dict().items()} for sae in (one, two)]
        same = tensors[0] == tensors[1] and structure(one) == structure(two)
        assert same or study.run_key(run) != other.run_key(run), arm


def test_another_step_of_w_has_its_own_usual_rate_and_the_published_one_keeps_it():
    study = Study(configure(SMOKE | {"w_step": "published"}), None)
    assert study.of(study.main_run("ra")).config.training.w_rate == study.config.training.lr
    study = Study(configure(SMOKE | {"w_lr": 0.05}), None)
    assert study.of(study.main_run("ra")).config.training.w_rate == 0.05
    assert study.of(Run("raw-ra-published-own", 0, 45)).config.training.w_rate == study.config.training.lr


@pytest.mark.parametrize("given", [{"unit_norm": True}, {"w_step": "mirror"}, {"frame": "centred"}])
def test_a_parameter_that_the_arm_shown_does_not_have_is_refused(given):
    study = Study(configure(SMOKE | given), None)
    (name,) = given
    with pytest.raises(ConfigError, match=f"{name} = .*: the arm raw-ra-published-own has {name} = "):
        study.require_followed("raw-ra-published-own", given)
    study.require_followed("ra-own", given)
