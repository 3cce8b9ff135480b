"""BatchTopK: trained on k·batch codes a batch, then applied token by token with the threshold that training found."""

import json

import pytest
import torch
from models.test_training import build, data, run
from safetensors.torch import load_file

from archsae_core.data.activations import Normalizer
from archsae_core.interop import to_saelens
from archsae_core.metrics.reconstruction import quality
from archsae_core.models.sae import SAE, THRESHOLD_SHARE, load_sae
from archsae_core.models.snapshots import snapshot_sae
from archsae_core.models.training import CHECKPOINT, Trainer, train


def batch_sae(arm="topk", **overrides):
    sae, config = build(arm, w_dtype="float32", **overrides)
    return SAE(sae.dictionary, sae.k, sae.mean, float(sae.scale), activation="batchtopk"), config


@pytest.mark.parametrize("arm", ["topk", "ra"])
def test_loss_and_gradients_are_those_of_the_dense_definition(arm):
    sae, config = batch_sae(arm, aux_coefficient=0.0)
    trainer = Trainer(sae, config)
    for step in range(3):
        trainer.train_step(data(step))
    x = sae.normalize(data(9))
    pre = ((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu()
    kept = pre.flatten().topk(sae.k * len(x)).indices
    z = torch.zeros(pre.numel()).index_fill(0, kept, 1.0).view_as(pre) * pre
    wanted = (x - z @ sae.atoms() - sae.b_dec).square().sum() / (x - x.mean(dim=0)).square().sum()
    found = trainer.losses(data(9)).fvu
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    parameters = [p for p in sae.parameters() if p.requires_grad]
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(wanted, parameters), strict=True)
    for gradient, reference in pairs:
        assert (gradient - reference).norm() <= 2e-5 * reference.norm()


def test_tokens_have_different_numbers_of_codes_and_k_on_average():
    sae, config = batch_sae(steps=300)
    trainer = Trainer(sae, config)
    sae.calibrate(data(0))
    for step in range(300):
        trainer.train_step(data(step))
    assert trainer.log[-1]["l0"] == sae.k
    active = (sae.encode(torch.cat([data(400), data(401)])).values > 0).sum(dim=1)
    assert active.float().mean() == pytest.approx(sae.k, rel=0.1)
    assert active.max() > sae.k > active.min()


def test_threshold_is_the_running_mean_of_the_smallest_code_of_a_batch():
    sae, config = batch_sae()
    sae.calibrate(data(0))
    centred = sae.normalize(data(0)) - sae.b_dec
    smallest = (centred @ sae.W_enc.T + sae.b_enc).relu().flatten().topk(sae.k * len(centred)).values.min()
    assert float(sae.threshold) == pytest.approx(float(smallest.detach()), rel=1e-5)
    before, trainer = float(sae.threshold), Trainer(sae, config)
    losses = trainer.losses(data(1))
    trainer.train_step(data(1))
    expected = before + THRESHOLD_SHARE * (float(losses.values[losses.values > 0].min()) - before)
    assert float(sae.threshold) == pytest.approx(expected, rel=1e-6)


def test_a_tokens_codes_do_not_depend_on_its_batch():
    sae, _ = batch_sae()
    sae.calibrate(data(0))
    x = data(1)
    whole = sae.encode(x).dense(sae.n_features)
    alone = torch.cat([sae.encode(row[None]).dense(sae.n_features) for row in x[:10]])
    torch.testing.assert_close(whole[:10], alone)


def test_file_checkpoint_and_snapshot_keep_the_threshold(tmp_path):
    sae, config = batch_sae(steps=20)
    trainer = Trainer(sae, config)
    for step in range(8):
        trainer.train_step(data(step))
    trainer.save(tmp_path / CHECKPOINT)
    other = Trainer(*batch_sae(steps=20))
    other.load(tmp_path / CHECKPOINT)
    for step in range(8, 12):
        trainer.train_step(data(step))
        other.train_step(data(step))
    for name, tensor in sae.state_dict().items():
        assert torch.equal(other.sae.state_dict()[name], tensor), name
    run("topk", tmp_path / "topk")  # the files of a TopK run have no threshold
    fresh, config = batch_sae(steps=20)
    trained = train(fresh, data, config, tmp_path / "batch")
    loaded = load_sae(tmp_path / "batch" / "sae.safetensors")
    assert loaded.activation == "batchtopk"
    assert torch.equal(loaded(data(3)), trained(data(3)))
    kept = snapshot_sae(tmp_path / "batch", 20, sae.k, Normalizer(sae.mean, float(sae.scale)))
    assert torch.equal(kept.threshold, trained.threshold)
    assert quality(kept, data(3)).r2 == pytest.approx(quality(trained, data(3)).r2, abs=0.02)
    assert snapshot_sae(tmp_path / "topk", 20, sae.k, Normalizer(sae.mean, float(sae.scale))).activation == "topk"


def test_saelens_gets_it_as_a_jumprelu_with_its_threshold(tmp_path):
    sae, _ = batch_sae()
    to_saelens(sae, tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "jumprelu"
    threshold = load_file(tmp_path / "sae_weights.safetensors")["threshold"]
    torch.testing.assert_close(threshold * sae.scale, sae.threshold.expand(sae.n_features))
