"""The frame of a study: its units, what its artefacts are kept under, and what is trained in it."""

import pytest
import torch

from archsae_core.models.sae import load_sae
from archsae_study.engine.study import Study
from archsae_study.settings.config import configure

SMOKE = configure({"preset": "smoke", "steps": 10})


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    study = Study(SMOKE, tmp_path_factory.mktemp("runs"))
    return study, study.variant(frame="raw")


def test_each_frame_has_units_of_its_own_and_both_know_the_training_mean(studies):
    centred, raw = (study.normalizer for study in studies)
    assert torch.equal(centred.mean, raw.mean)
    assert (centred.frame, raw.frame) == ("centred", "raw")
    x = studies[0].train_activations.gather(studies[0].train_activations.kept)
    for normalizer, shift in ((centred, centred.mean), (raw, 0.0)):
        assert ((x - shift) * normalizer.scale).square().sum(dim=1).mean() == pytest.approx(x.shape[1], rel=1e-4)


def test_anchors_are_fitted_in_the_frames_units(studies):
    centred, raw = studies
    assert centred.anchor_recipe(None) != raw.anchor_recipe(None)
    x = raw.normalizer.normalize(raw.train_activations.gather(raw.train_activations.kept))
    assert torch.cdist(raw.anchors(), x).min(dim=1).values.median() < 0.5 * raw.anchors().norm(dim=1).median()
    assert torch.allclose(raw.anchors().mean(dim=0), x.mean(dim=0), atol=0.5)
    assert not torch.allclose(centred.anchors().mean(dim=0), x.mean(dim=0), atol=0.5)


@pytest.mark.parametrize("arm", ["topk", "ra"])
def test_a_raw_run_is_kept_apart_and_has_no_decoder_bias(studies, arm):
    centred, raw = studies
    run = raw.main_run(arm)
    folder = raw.run_folder(run)
    assert folder != centred.run_folder(centred.main_run(arm))
    sae = load_sae(folder / "sae.safetensors")
    assert sae.frame == "raw"
    assert sae.b_dec.abs().max() == 0
    x = torch.cat([batch for batch, _ in raw.scored_batches("heldout")])
    residual = (x - sae(x)).square().sum().double()
    expected = 1 - residual / (x - x.mean(dim=0)).square().sum()
    assert raw.scores(run).quality.r2 == pytest.approx(float(expected), abs=1e-5)


def test_runs_of_another_length_share_no_file(studies):
    """The learning rates depend on the number of steps, so a shorter run is no part of a longer one."""
    study, _ = studies
    longer = study.variant(steps=20)
    assert study.run_folder(study.main_run("topk")) != longer.run_folder(longer.main_run("topk"))
