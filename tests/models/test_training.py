"""The loop: constraint after every step, bits, resume, dead features, divergence."""

import pytest
import torch

from archsae_core.models.dictionary import ArchetypalDictionary, make_dictionary
from archsae_core.models.sae import SAE, load_sae
from archsae_core.models.snapshots import snapshot_steps
from archsae_core.models.training import CHECKPOINT, Trainer, TrainingDiverged, leave, train
from archsae_study.arms import ARMS
from archsae_study.config import configure

D_MODEL, N_ANCHORS = 16, 48


def data(step):
    """Sparse non-negative mixtures of 32 fixed directions, the same at every run for one step."""
    atoms = torch.nn.functional.normalize(torch.randn(32, D_MODEL, generator=torch.Generator().manual_seed(99)), dim=1)
    generator = torch.Generator().manual_seed(1000 + step)
    codes = torch.rand(256, 32, generator=generator) * (torch.rand(256, 32, generator=generator) < 0.08)
    return codes @ atoms * 10


def build(arm="ra", **overrides):
    config = configure({"preset": "smoke", "n_features": 48, "k": 3, "checkpoint_every": 7} | overrides)
    x = data(0)
    mean = x.mean(dim=0)
    scale = (D_MODEL / (x - mean).square().sum(dim=1).mean()).sqrt()
    anchors = (data(1)[:N_ANCHORS] - mean) * scale
    dictionary = make_dictionary(
        ARMS[arm].dictionary,
        ARMS[arm].start,
        anchors,
        config.dictionary,
        config.training,
        torch.Generator().manual_seed(0),
    )
    return SAE(dictionary, config.dictionary.k, mean, float(scale)), config.training


ARCHETYPAL = [{"w_step": step, "delta": delta} for step in ("published", "mirror") for delta in (0.0, 0.5)]


@pytest.mark.parametrize("overrides", ARCHETYPAL)
def test_constraint_holds_after_every_step_and_in_the_file(tmp_path, overrides):
    sae, config = build(**overrides)
    trainer = Trainer(sae, config)
    for step in range(12):
        trainer.train_step(data(step))
        assert sae.dictionary.violation() == 0.0
    train(*build(**overrides), data, tmp_path, steps=12)
    assert load_sae(tmp_path / "sae.safetensors").dictionary.violation() == 0.0


@pytest.mark.parametrize("overrides", ARCHETYPAL)
def test_w_moves_and_the_kept_hull_points_are_w_times_c(overrides):
    sae, config = build(**overrides)
    before = sae.dictionary.W.detach().clone()
    trainer = Trainer(sae, config)
    for step in range(20):
        trainer.train_step(data(step))
    assert (sae.dictionary.W - before).abs().sum(dim=1).min() > 0
    if trainer.mirror:
        assert torch.allclose(trainer.mirror.hull, sae.dictionary.W @ sae.dictionary.C, atol=1e-5)


@pytest.mark.parametrize(("arm", "overrides"), [("topk", {}), ("ra", {}), ("ra", {"w_step": "published"})])
def test_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, arm, overrides):
    whole = train(*build(arm, **overrides), data, tmp_path / "whole", steps=20)

    class Killed(Exception):
        """Stands for a killed process."""

    def until_killed(step):
        if step == 16:
            raise Killed
        return data(step)

    with pytest.raises(Killed):
        train(*build(arm, **overrides), until_killed, tmp_path / "broken", steps=20)
    assert (tmp_path / "broken" / CHECKPOINT).exists()
    seen = []
    train(*build(arm, **overrides), lambda step: seen.append(step) or data(step), tmp_path / "broken", steps=20)
    assert seen == list(range(14, 20))
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "broken").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    assert whole.k == 3


@pytest.mark.parametrize(("arm", "overrides"), [("topk", {}), ("ra", {}), ("ra", {"w_step": "published"})])
def test_a_shorter_run_ends_where_a_longer_one_passes_to_the_bit_and_takes_no_step(tmp_path, arm, overrides):
    alone, longer, left = (tmp_path / name for name in ("alone", "longer", "left"))
    train(*build(arm, **overrides), data, alone, steps=20)

    def pass_by(trainer):
        if trainer.step == 20:
            leave(trainer, longer, left)

    train(*build(arm, **overrides), data, longer, steps=45, after_step=pass_by)
    train(*build(arm, **overrides), lambda step: pytest.fail(f"step {step} was taken again"), left, steps=20)
    assert sorted(path.name for path in alone.iterdir()) == sorted(path.name for path in left.iterdir())
    for path in alone.iterdir():
        assert path.read_bytes() == (left / path.name).read_bytes(), path.name


def test_same_config_same_bits_and_another_seed_of_data_differs(tmp_path):
    for name in ("a", "b"):
        train(*build(), data, tmp_path / name, steps=9)
    train(*build(), lambda step: data(step + 50), tmp_path / "c", steps=9)
    a, b, c = ((tmp_path / name / "sae.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_loss_falls_and_l0_is_k():
    sae, config = build("topk")
    trainer = Trainer(sae, config)
    for step in range(300):
        trainer.train_step(data(step))
    assert trainer.log[0]["r2"] < trainer.log[-1]["r2"] > 0.6
    assert (sae.encode(data(0)).values > 0).sum(dim=1).max() <= sae.k


def test_auxk_gives_dead_features_a_gradient_and_only_them():
    sae, config = build("topk", aux_k=2)
    trainer = Trainer(sae, config)
    trainer.step = 100
    trainer.last_fired[:] = 100
    assert float(trainer.losses(data(0)).aux) == 0.0
    trainer.last_fired[[5, 7]] = 0
    aux = trainer.losses(data(0)).aux
    aux.backward()
    touched = sae.dictionary.D.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert set(touched) <= {5, 7}
    assert touched


def test_aux_loss_is_the_unexplained_share_of_the_residual():
    sae, config = build("topk")
    trainer = Trainer(sae, config)
    trainer.step = 1000
    aux = float(trainer.losses(data(0)).aux.detach())
    x = sae.normalize(data(0))
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    values, indices = pre.topk(sae.k, dim=1)
    error = x - torch.zeros_like(pre).scatter(1, indices, values.relu()) @ sae.atoms() - sae.b_dec
    values, indices = pre.topk(config.aux_k, dim=1)
    rest = error - torch.zeros_like(pre).scatter(1, indices, values.relu()) @ sae.atoms()
    assert aux == pytest.approx(float((rest.square().sum() / error.square().sum()).detach()), rel=1e-4)


def dense_loss(sae, config, x, dead):
    """The loss written out, on matrices of all codes."""
    dictionary = sae.dictionary
    if isinstance(dictionary, ArchetypalDictionary):
        atoms = dictionary.W @ dictionary.C + dictionary.relax
        unit = torch.nn.functional.normalize(atoms, dim=1)
        atoms = unit if dictionary.unit_norm else atoms * dictionary.log_scale.exp()
    else:
        atoms = dictionary.D
    x = sae.normalize(x)
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc

    def reconstruction(pre, k):
        values, indices = pre.topk(k, dim=1)
        return torch.zeros_like(pre).scatter(1, indices, values.relu()) @ atoms

    error = x - reconstruction(pre, sae.k) - sae.b_dec
    loss = error.square().sum() / (x - x.mean(dim=0)).square().sum()
    if not dead:
        return loss
    living = torch.ones(sae.n_features, dtype=torch.bool)
    living[dead] = False
    rest = error.detach() - reconstruction(pre.masked_fill(living, -torch.inf), min(config.aux_k, len(dead)))
    return loss + config.aux_coefficient * rest.square().sum() / error.detach().square().sum()


FACTORISED = {"w_step": "published", "unit_norm": False, "learn_scale": True, "n_features": 512}


@pytest.mark.parametrize("dead", [[], [1, 30, 41], list(range(12, 46))], ids=["none", "few", "more-than-aux_k"])
@pytest.mark.parametrize(
    ("arm", "more"), [("topk", {}), ("ra", {}), ("ra", {"w_step": "published"}), ("ra", FACTORISED)]
)
def test_loss_and_gradients_are_those_of_the_dense_formula(arm, more, dead):
    sae, config = build(arm, aux_k=8, w_dtype="float32", **more)
    trainer = Trainer(sae, config)
    for step in range(3):
        trainer.train_step(data(step))
    trainer.step, trainer.last_fired[:] = 100, 100
    trainer.last_fired[dead] = 0
    wanted = dense_loss(sae, config, data(9), dead)
    losses = trainer.losses(data(9))
    found = losses.fvu + config.aux_coefficient * losses.aux
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    parameters = [p for p in sae.parameters() if p.requires_grad]
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(wanted, parameters), strict=True)
    for gradient, reference in pairs:
        assert (gradient - reference).norm() <= 2e-5 * reference.norm()


@pytest.mark.parametrize("more", [{"w_step": "published"}, FACTORISED], ids=["by-atom", "by-token"])
def test_gradients_with_products_in_bfloat16_are_within_half_a_percent(more):
    sae, config = build("ra", w_dtype="bfloat16", **more)
    trainer = Trainer(sae, config)
    for step in range(3):
        trainer.train_step(data(step))
    losses, wanted = trainer.losses(data(9)), dense_loss(sae, config, data(9), [])
    parameters = [p for p in sae.parameters() if p.requires_grad]
    pairs = zip(torch.autograd.grad(losses.fvu, parameters), torch.autograd.grad(wanted, parameters), strict=True)
    for gradient, reference in pairs:
        assert 0 < (gradient - reference).norm() <= 5e-3 * reference.norm()


def test_rounded_weights_follow_what_is_written_to_them():
    sae, _ = build("ra", w_dtype="bfloat16", **FACTORISED)
    dictionary = sae.dictionary
    state = dictionary.state_dict() | {"W": dictionary.W.detach().flip(0)}
    for write in (dictionary.project_, lambda: dictionary.W.mul_(0.5), lambda: dictionary.load_state_dict(state)):
        with torch.no_grad():
            write()
        assert torch.equal(dictionary._rounded_weights(), dictionary.W.bfloat16())


def test_nan_stops_with_the_step_and_keeps_the_checkpoint(tmp_path):
    sae, config = build()
    with pytest.raises(TrainingDiverged, match="step 10: lower lr"):
        train(sae, config, lambda step: data(step) * (float("nan") if step == 10 else 1), tmp_path, steps=20)
    assert (tmp_path / CHECKPOINT).exists()


def test_snapshots_are_log_spaced_with_both_ends():
    assert snapshot_steps(600) == [0, 1, 3, 10, 32, 100, 316, 600]
    assert snapshot_steps(1) == [0, 1]


def test_published_step_is_adam_then_relu_and_row_normalise():
    """One step against torch's own Adam on the dense formula."""
    sae, config = build(w_step="published", delta=0.5, aux_coefficient=0.0, w_dtype="float32")
    dictionary = sae.dictionary
    W = dictionary.W.detach().clone().requires_grad_()
    relax = dictionary.relax.detach().clone().requires_grad_()
    x = sae.normalize(data(0))
    atoms = torch.nn.functional.normalize(W @ dictionary.C + relax, dim=1)
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    values, indices = pre.detach().topk(sae.k, dim=1)
    z = torch.zeros_like(pre).scatter(1, indices, values.relu())
    fvu = (x - z @ atoms - sae.b_dec).square().sum() / (x - x.mean(dim=0)).square().sum()
    fvu.backward()
    torch.optim.Adam([W, relax], lr=config.lr).step()
    with torch.no_grad():
        expected = W.relu() / W.relu().sum(dim=1, keepdim=True)
    Trainer(sae, config).train_step(data(0))
    assert isinstance(dictionary, ArchetypalDictionary)
    assert (dictionary.W - expected).abs().max() < 1e-4
    assert (dictionary.relax - relax).abs().max() < 1e-4
