"""`export`: a trained dictionary of the smoke study in the files of other tools."""

import json

import pytest
import torch

from archsae_core.interop import from_saelens, open_sae
from archsae_core.models.sae import SAE
from archsae_study.__main__ import main
from archsae_study.engine.runs import arm_runs
from archsae_study.engine.study import Study
from archsae_study.explorer.of_study import subject_runs
from archsae_study.settings.config import configure


@pytest.fixture(scope="module")
def root(smoke_runs):
    return smoke_runs


@pytest.fixture(scope="module")
def study(root):
    study = Study(configure({"preset": "smoke"}), root)
    study.scores(run_of(study))
    return study


def run_of(study):
    return arm_runs(study.config, "ra-own")[0]


def export(root, folder, to, *options):
    return main(["export", str(folder), "--to", to, "--preset", "smoke", "--runs", str(root), *options])


def test_saelens_folder_tells_where_it_comes_from(study, root, tmp_path, capsys):
    assert export(root, tmp_path / "out", "saelens") == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / name) for name in ("archsae.safetensors", "cfg.json", "sae_weights.safetensors")
    ]
    found, trained = from_saelens(tmp_path / "out"), study.sae(run_of(study))
    assert torch.equal(found.atoms(), trained.atoms())
    about, config = found.about, study.config
    assert (about.arm, about.seed, about.steps) == ("ra-own", 0, config["steps"])
    assert (about.model, about.layer, about.text) == (config["model"], config["layer"], config["text"])
    assert (about.excluded_positions, about.prepend_bos) == ((0,), False)
    assert found.frame == trained.frame
    assert about.metrics["r2"] == study.scores(run_of(study)).quality.r2
    own = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["archsae"]
    assert own["delta"] == config["delta"]


def test_the_file_of_a_run_tells_where_it_comes_from(study):
    about = open_sae(study.run_folder(run_of(study)) / "sae.safetensors").about
    names = ("model", "layer", "context", "text", "seed", "steps", "excluded_positions")
    config = study.config
    expected = *(config[name] for name in names[:4]), 0, config["steps"], (0,)
    assert tuple(getattr(about, name) for name in names) == expected
    assert (about.arm, about.metrics) == (None, {})  # other arms may share the run


def test_a_licence_is_told_wherever_there_is_a_place_for_it(study, root, tmp_path):
    assert export(root, tmp_path / "out", "saelens", "--licence", "mit") == 0
    assert from_saelens(tmp_path / "out").about.licence == "mit"
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["archsae"]["licence"] == "mit"


def test_without_a_choice_the_archetypal_arm_of_the_frame_is_exported(tmp_path):
    options = ["--set", "frame=raw", "--set", "steps=5"]
    assert export(tmp_path / "runs", tmp_path / "out", "saelens", *options) == 0
    assert from_saelens(tmp_path / "out").about.arm == "raw-ra-own"


def test_a_card_holds_scores_and_licence(study, root, tmp_path):
    assert export(root, tmp_path / "out", "pretrained", "--licence", "mit") == 0
    found = SAE.from_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\nlicense: mit\n" in card
    assert f"| r2 | {found.about.metrics['r2']:.4g} |" in card


def test_features_for_neuronpedia_and_saedashboard(study, root, tmp_path):
    names = ("--model-id", "tiny-gpt2", "--set-name", "mine")
    assert export(root, tmp_path / "upload", "neuronpedia", *names) == 0
    upload = json.loads((tmp_path / "upload" / "upload-0.json").read_text())
    assert (upload["modelId"], upload["source"]) == ("tiny-gpt2", f"{study.config['layer']}-mine")
    assert len(upload["features"]) == study.config["n_features"]
    fired = study.fired(run_of(study))
    total = len(study.heldout_activations.kept)
    rates = torch.tensor([each["density"] for each in upload["features"]])
    assert torch.allclose(rates, fired / total)
    assert [bool(each["activations"]) for each in upload["features"]] == (fired > 0).tolist()
    assert export(root, tmp_path / "batch", "sae-dashboard") == 0
    batch = json.loads((tmp_path / "batch" / "batch-0.json").read_text())
    assert (batch["model_id"], batch["sae_set"]) == ("random-gpt2", "archsae-ra-own")
    assert [each["frac_nonzero"] for each in batch["features"]] == [each["density"] for each in upload["features"]]


FAULTS = {
    "tool": (("nowhere",), "error: to = 'nowhere': must be one of pretrained, saelens"),
    "arm": (("saelens", "--arm", "none"), "error: arm = 'none': must be one of topk"),
    "name": (("neuronpedia", "--set-name", "a b"), "error: set_name = 'a b': use letters, digits"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_before_any_work(fault, root, tmp_path, capsys):
    options, message = FAULTS[fault]
    assert export(root, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(root, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert export(root, tmp_path, "saelens") == 2
    assert "it is not empty: name a new one" in capsys.readouterr().err
    assert export(root, tmp_path / "mine.txt", "saelens") == 2
    assert "mine.txt': it is a file: name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("changes", [{"w_step": "sparse"}, {"w_step": "published"}, {"smoothing": 0.5}, {"w_lr": 0.01}])
def test_what_is_shown_and_exported_follows_the_parameters_of_w(changes):
    """As notebooks 02 to 04 do: the arms of the comparison alone are what they are."""
    study = Study(configure({"preset": "smoke"} | changes))
    name, value = next(iter(changes.items()))
    for run in (study.main_run("ra"), *subject_runs(study, "ra-own")):
        assert dict(run.changes)[name] == value
        assert study.of(run).config[name] == value
    assert subject_runs(study, "topk-kmeans-own")[0].changes == ()
    assert arm_runs(study.config, "ra-own")[0].changes == ()
