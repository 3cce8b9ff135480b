"""The loop: constraint after every step, bits, resume, dead features, divergence."""

import copy
import inspect
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from archsae_core.config import ConfigError
from archsae_core.data.activations import Normalizer
from archsae_core.kernels import sparse
from archsae_core.metrics.reconstruction import quality
from archsae_core.metrics.stability import compare, cosine_with_start, side
from archsae_core.models import auxk
from archsae_core.models import dictionary as dictionaries
from archsae_core.models.dictionary import ArchetypalDictionary, FreeDictionary, make_dictionary
from archsae_core.models.sae import SAE, load_sae
from archsae_core.models.snapshots import snapshot_file, snapshot_sae, snapshot_steps
from archsae_core.models.training import (
    CHECKPOINT,
    RELAX_SHARE,
    Trainer,
    TrainingDiverged,
    as_batches,
    decayed,
    learning_rate_of_relax,
    train,
)
from archsae_core.tensor_files import read_tensors
from archsae_study.settings.config import configure

D_MODEL, N_ANCHORS = 16, 48
KINDS = {"topk": ("free", "random"), "ra": ("archetypal", "centroids"), "frozen": ("frozen", "centroids")}
"""Dictionary and start of each case."""


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
        *KINDS[arm],
        anchors,
        config.dictionary,
        config.training,
        torch.Generator().manual_seed(0),
    )
    return SAE(dictionary, config.dictionary.k, mean, float(scale)), config.training


def run(arm, folder, batches=data, steps=20, **overrides):
    sae, config = build(arm, steps=steps, **overrides)
    return train(sae, batches, config, folder)


FREE_NORMS = {"w_step": "published", "unit_norm": False, "learn_scale": True}
ARCHETYPAL = [{"w_step": step, "delta": delta} for step in ("published", "mirror", "sparse") for delta in (0.0, 0.5)]
DENSE = [more for more in ARCHETYPAL if more["w_step"] != "sparse"]
"""Where W is a parameter: a sparse W's support moves by rules of its own (test_sparse_w)."""


@pytest.mark.parametrize("overrides", ARCHETYPAL)
def test_constraint_holds_after_every_step_and_in_the_file(tmp_path, overrides):
    sae, config = build(**overrides)
    trainer = Trainer(sae, config)
    for step in range(12):
        trainer.train_step(data(step))
        assert sae.dictionary.violation() == 0.0
    run("ra", tmp_path, steps=12, **overrides)
    assert load_sae(tmp_path / "sae.safetensors").dictionary.violation() == 0.0


@pytest.mark.parametrize("overrides", ARCHETYPAL)
def test_w_moves_and_the_kept_hull_points_are_w_times_c(overrides):
    sae, config = build(**overrides)
    before = sae.dictionary.W.detach().clone()
    trainer = Trainer(sae, config)
    for step in range(40):
        trainer.train_step(data(step))
    moved = (sae.dictionary.W - before).abs().sum(dim=1) > 0
    # a row of one anchor stays where no other anchor does better
    assert moved.any() if config.w_step == "sparse" else moved.all()
    if trainer.mirror:
        assert torch.allclose(trainer.mirror.hull, sae.dictionary.W @ sae.dictionary.C, atol=1e-5)


RESUMED = [("topk", {}), ("ra", {}), ("ra", {"w_step": "published"}), ("ra", {"w_step": "sparse", "support": 5})]


@pytest.mark.parametrize(("arm", "overrides"), RESUMED)
def test_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, arm, overrides):
    whole = run(arm, tmp_path / "whole", **overrides)

    class Killed(Exception):
        """Stands for a killed process."""

    def until_killed(step):
        if step == 16:
            raise Killed
        return data(step)

    with pytest.raises(Killed):
        run(arm, tmp_path / "broken", until_killed, **overrides)
    assert (tmp_path / "broken" / CHECKPOINT).exists()
    seen = []
    run(arm, tmp_path / "broken", lambda step: seen.append(step) or data(step), **overrides)
    assert seen == [0, *range(14, 20)]  # the first batch tells the run from others
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "broken").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    assert whole.k == 3


def test_same_config_same_bits_and_another_seed_of_data_differs(tmp_path):
    for name in ("a", "b"):
        run("ra", tmp_path / name, steps=9)
    run("ra", tmp_path / "c", lambda step: data(step + 50), steps=9)
    a, b, c = ((tmp_path / name / "sae.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_a_step_has_gradients_where_an_interrupt_left_them_off(tmp_path):
    expected = run("ra", tmp_path / "on", steps=3).state_dict()
    with torch.no_grad():
        found = run("ra", tmp_path / "off", steps=3).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_loss_falls_and_l0_is_k():
    sae, config = build("topk", steps=300)
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


def test_auxk_revives_features_whose_encoder_is_too_short_to_be_chosen():
    def revived(coefficient):
        sae, config = build("topk", steps=80, aux_k=8, dead_after=5, lr=3e-3, aux_coefficient=coefficient)
        sae.calibrate(data(0))
        with torch.no_grad():
            sae.W_enc[:12] *= 0.05
        trainer = Trainer(sae, config)
        for step in range(80):
            trainer.train_step(data(step))
        codes = sae.encode(torch.cat([data(1000 + step) for step in range(4)]))
        return int((codes.indices[codes.values > 0].unique() < 12).sum())

    assert revived(0.0) == 0
    assert revived(1 / 32) >= 4


def momenta_of(trainer):
    found = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    return found + ([trainer.mirror.momentum] if trainer.mirror else [])


@pytest.mark.parametrize(("arm", "w_step"), [("topk", "published"), ("ra", "published"), ("ra", "mirror")])
def test_momenta_of_dead_features_do_not_become_denormal_numbers(arm, w_step):
    """Adam takes many times as long for them. 0.9^830 is 1e-38, which float32 keeps as a denormal number for ever."""
    sae, config = build(arm, aux_coefficient=0.0, steps=200, w_step=w_step)
    trainer = Trainer(sae, config)
    trainer.train_step(data(0))
    with torch.no_grad():
        sae.b_enc[::2] = -100.0
        for momentum in momenta_of(trainer):
            momentum *= 1e-30  # what 650 steps without a gradient leave
    for _ in range(120):
        trainer.train_step(data(1))
    tiny = torch.finfo(torch.float32).tiny
    momenta = [momentum.abs() for momentum in momenta_of(trainer)]
    assert not any(((momentum > 0) & (momentum < tiny)).any() for momentum in momenta)
    assert (momenta[0][::2] == 0).all()
    assert (momenta[0] > tiny).any()


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


FACTORISED = FREE_NORMS | {"n_features": 512}


@pytest.fixture(autouse=True)
def by_token_where_there_are_many_atoms(monkeypatch):
    monkeypatch.setattr(dictionaries, "SPARSE_ENTRY", 1)


@pytest.mark.parametrize("dense", [8, 1], ids=["dense", "sparse"])
@pytest.mark.parametrize("dead", [[], [1, 30, 41], list(range(12, 46))], ids=["none", "few", "more-than-aux_k"])
@pytest.mark.parametrize(
    ("arm", "more"), [("topk", {}), ("ra", {}), ("ra", {"w_step": "published"}), ("ra", FACTORISED)]
)
def test_loss_and_gradients_are_those_of_the_dense_formula(monkeypatch, arm, more, dead, dense):
    monkeypatch.setattr(auxk, "DENSE", dense)
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


@pytest.mark.parametrize(("codes", "width"), [(3, N_ANCHORS), (20, D_MODEL)])
def test_rows_that_are_summed_are_those_that_take_less_time(monkeypatch, codes, width):
    """Of W, then mapped by C, where tokens have few codes; else of D, which is computed once."""
    sae, _ = build("ra", w_dtype="float32", **FACTORISED)
    summed, decode = [], sparse.decode
    monkeypatch.setattr(sparse, "decode", lambda *given: summed.append(given[2]) or decode(*given))
    indices = torch.arange(codes).expand(256, -1)
    values = torch.ones(256, codes)
    found = sae.dictionary.decoder(256, codes)(values, indices, sparse.group_by_feature(indices, sae.n_features))
    assert summed[0].shape[1] == width
    torch.testing.assert_close(found, sae.dictionary.atoms()[:codes].sum(dim=0).expand(256, -1))


def test_rounded_weights_follow_what_is_written_to_them():
    sae, config = build("ra", w_dtype="bfloat16", **FACTORISED)
    Trainer(sae, config)
    dictionary = sae.dictionary
    state = dictionary.state_dict() | {"W": dictionary.W.detach().flip(0)}
    for write in (dictionary.project_, lambda: dictionary.W.mul_(0.5), lambda: dictionary.load_state_dict(state)):
        with torch.no_grad():
            write()
        assert torch.equal(dictionary._rounded_weights(), dictionary.W.bfloat16())
    with torch.no_grad():
        dictionary.project_()
        version, copied = dictionary.W._version, copy.deepcopy(dictionary)
        while copied.W._version < version:  # a copy counts anew
            copied.W.mul_(0.99)
    assert torch.equal(copied._rounded_weights(), copied.W.bfloat16())


def test_w_is_trained_in_the_arithmetic_and_by_the_step_of_the_config():
    """Whatever trained the dictionary before."""
    sae, mirror = build("ra", **FREE_NORMS | {"w_step": "mirror"})
    Trainer(sae, mirror)
    _, published = build("ra", w_dtype="float32", **FREE_NORMS)
    before = sae.dictionary.W.detach().clone()
    trainer = Trainer(sae, published)
    assert not sae.dictionary.rounded
    trainer.train_step(data(0))
    assert (sae.dictionary.W - before).abs().max() > 1e-5
    assert Trainer(sae, replace(published, w_dtype="bfloat16")).sae.dictionary.rounded


def killed(folder, **options):
    """A run of 20 steps that ends after a checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run("ra", folder, lambda step: data(step) if step < 16 else (_ for _ in ()).throw(KeyboardInterrupt), **options)
    return (folder / CHECKPOINT).read_bytes()


OTHERS = {
    "data": ("ra", lambda step: data(step) + 1, {}),
    "kind": ("topk", data, {}),
    "radius": ("ra", data, {"delta": 0.25}),
    "length": ("ra", data, {"steps": 30}),
    "rate": ("ra", data, {"lr": 2e-3}),
}


@pytest.mark.parametrize("other", list(OTHERS))
def test_a_checkpoint_of_another_run_is_refused_and_left(tmp_path, other):
    kept = killed(tmp_path)
    arm, batches, options = OTHERS[other]
    with pytest.raises(ConfigError, match=r"work: .*checkpoint\.safetensors is of another run: .* or delete it"):
        run(arm, tmp_path, batches, **options)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept
    assert not (tmp_path / "sae.safetensors").exists()


def test_a_checkpoint_of_other_rows_beyond_the_first_batch_is_refused(tmp_path, monkeypatch):
    x, (sae, config) = torch.cat([data(step) for step in range(9)]), build("topk", steps=20)
    first = as_batches(x, config.batch_size, 0)(0)
    seen = (x[:, None] == first[None]).all(dim=2).any(dim=1)
    other = torch.where(seen[:, None], x, x + 1)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping(16, Trainer.train_step))
        with pytest.raises(KeyboardInterrupt):
            train(sae, x, config, tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors is of another run"):
        train(build("topk", steps=20)[0], other, config, tmp_path)
    train(build("topk", steps=20)[0], x, config, tmp_path)


def stopping(after, train_step):
    def step(trainer, x):
        if trainer.step >= after:
            raise KeyboardInterrupt
        train_step(trainer, x)

    return step


def test_rows_of_w_that_hold_one_anchor_are_warned_of():
    _, mirror = build("ra", w_step="mirror")
    _, published = build("ra", **FREE_NORMS)
    for smoothing, config, warned in ((None, mirror, True), (0.1, mirror, False), (None, published, False)):
        sae = SAE(ArchetypalDictionary.from_anchors(data(1)[:N_ANCHORS], smoothing=smoothing), 3)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            Trainer(sae, config)
        said = [str(one.message).partition(":")[0] for one in found]
        every = f"{N_ANCHORS} of {N_ANCHORS} rows of W hold one anchor, which w_step='mirror' never leaves"
        assert said == [every] * warned


def test_atoms_that_were_read_stay_while_training_goes_on():
    for arm in ("topk", "ra"):
        sae, config = build(arm, lr=1e-2)
        start, before = sae.atoms(), side(sae)
        encoder = before.encoder.clone()
        trainer = Trainer(sae, config)
        for step in range(5):
            trainer.train_step(data(step))
        assert 0 < cosine_with_start(start, sae.atoms()) < 0.9999
        assert compare(before, side(sae))["raw"]["hungarian_centred"] < 0.9999
        assert torch.equal(before.encoder, encoder)
        assert sae.atoms().requires_grad


def test_a_damaged_checkpoint_is_named(tmp_path):
    kept = killed(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ConfigError, match=r"work: .*checkpoint\.safetensors cannot be read .*: delete it"):
        run("ra", tmp_path, data)


def test_nan_stops_with_the_step_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match="step 10: x holds NaN or infinity there"):
        run("ra", tmp_path, lambda step: data(step) * (float("nan") if step == 10 else 1))
    assert (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.ones(256, D_MODEL), "at step 10: the rows of x are all equal there"),
        (torch.ones(0, D_MODEL), "x has no rows at step 10"),
    ],
)
def test_a_later_batch_without_variance_or_rows_is_named(batch, message, activation):
    ready, config = build("ra", steps=20)
    sae = SAE(ready.dictionary, 3, activation=activation)
    with pytest.raises(TrainingDiverged, match=message):
        train(sae, lambda step: batch if step == 10 else data(step), config)


def test_no_checkpoint_holds_weights_that_are_no_numbers(tmp_path):
    """A gradient may be infinite where the loss is not yet."""

    def broken(step):
        if step == 13:  # after which a checkpoint is due
            sae.W_enc.register_hook(lambda gradient: gradient * torch.inf)
        return data(step)

    sae, config = build("topk", steps=20)
    with pytest.raises(TrainingDiverged, match="is not finite at step 13: lower lr or w_lr"):
        train(sae, broken, config, tmp_path)
    kept = read_tensors(tmp_path / CHECKPOINT)
    assert kept.metadata["step"] == "7"
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())


def test_a_sparse_w_that_is_no_number_is_not_kept(tmp_path):
    sae, config = build("ra", w_step="sparse", steps=20)

    def broken(step):
        if step == 13:
            sae.dictionary.W_values[0, 0] = torch.nan
        return data(step)

    with pytest.raises(TrainingDiverged):
        train(sae, broken, config, tmp_path)
    assert read_tensors(tmp_path / CHECKPOINT).metadata["step"] == "7"


@pytest.mark.parametrize("w_step", ["published", "mirror"])
def test_autocast_around_training_changes_nothing(w_step):
    expected, _ = build("ra", w_step=w_step, dead_after=2)
    found, config = build("ra", w_step=w_step, dead_after=2, steps=12, w_dtype="float32")
    for sae in (expected, found):
        with torch.no_grad():
            sae.W_enc[::3] *= 1e-3  # dead features, which AuxK is about
    batches = [data(step) for step in range(12)]
    train(expected, batches.__getitem__, config)
    with torch.autocast("cpu", torch.bfloat16):
        train(found, batches.__getitem__, config)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


def test_an_sae_that_was_frozen_as_a_whole_is_not_trained(tmp_path):
    sae, config = build("topk")
    with pytest.raises(ConfigError, match="sae: none of its weights requires a gradient"):
        train(sae.requires_grad_(False), data, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_snapshots_are_log_spaced_with_both_ends():
    assert snapshot_steps(600) == [0, 1, 3, 10, 32, 100, 316, 600]
    assert snapshot_steps(1) == [0, 1]


def test_a_shorter_run_in_the_folder_of_a_longer_one_leaves_no_snapshot_of_it(tmp_path):
    run("topk", tmp_path, steps=20)
    mine = {"snapshot_best.safetensors", "snapshot_000010_copy.safetensors", "snapshot_000099.safetensors"}
    for name in ("snapshot_best.safetensors", "snapshot_000010_copy.safetensors"):
        shutil.copyfile(tmp_path / snapshot_file(20), tmp_path / name)
    (tmp_path / "snapshot_000099.safetensors").write_text("no snapshot")
    run("topk", tmp_path, steps=4)
    left = {path.name for path in tmp_path.glob("snapshot_*")}
    assert left == {snapshot_file(step) for step in snapshot_steps(4)} | mine


@pytest.mark.parametrize("given", ["equal rows", "one row"])
def test_rows_without_variance_are_refused_before_anything_is_written(tmp_path, given):
    sae, config = build("topk")
    x = torch.ones(300, D_MODEL) if given == "equal rows" else data(0)[:1]
    with pytest.raises(ConfigError, match=r"x: the first batch has .*: the loss is a share of their variance"):
        train(sae, x, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_saes_of_one_dictionary_do_not_move_each_other():
    dictionary, (_, config) = FreeDictionary.random(48, D_MODEL, seed=1), build("topk", steps=5)
    first, second = SAE(dictionary, 3), SAE(dictionary, 3)
    train(first, data, config)
    atoms = first.atoms()
    train(second, data, config, seed=1)
    assert torch.equal(first.atoms(), atoms)
    assert not torch.equal(SAE(dictionary, 3).atoms(), atoms)


def test_the_encoder_of_a_trained_sae_is_not_scaled_again():
    sae, config = build("topk", steps=30)
    train(sae, data, config)
    before, r2 = sae.W_enc.detach().clone(), quality(sae, data(999)).r2
    train(sae, data, replace(config, steps=1, lr=1e-9))
    assert torch.allclose(sae.W_enc, before, atol=1e-6)
    assert quality(sae, data(999)).r2 == pytest.approx(r2, abs=1e-4)


def test_the_first_batch_of_a_function_is_looked_at_before_it_is_hashed(tmp_path):
    sae, config = build("topk")
    with pytest.raises(ConfigError, match="x is no tensor"):
        train(sae, lambda step: data(step).numpy(), config, tmp_path)


@pytest.mark.parametrize("place", ["", "a file"])
def test_a_place_that_is_no_folder_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(ConfigError, match="work = "):
        train(build("topk")[0], data, build("topk")[1], place)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_run_that_diverges_leaves_nothing_of_the_one_that_it_replaces(tmp_path):
    run("topk", tmp_path, steps=20)
    with pytest.raises(TrainingDiverged):
        run("topk", tmp_path, lambda step: data(step) * (float("nan") if step == 2 else 1), steps=20)
    assert not (tmp_path / "sae.safetensors").exists()
    assert not (tmp_path / "log.json").exists()


def test_seeds_of_numpy_are_those_of_python():
    """Type checks, which are on in tests alone, are passed over."""
    bare, (_, config) = inspect.unwrap(train), build("topk")
    weights = [bare(build("topk")[0], data(0), config, seed=seed).W_enc for seed in (2, np.int64(2))]
    assert torch.equal(*weights)


@pytest.mark.parametrize("seed", [-1, True])
def test_a_seed_is_a_whole_number(seed):
    sae, config = build("topk")
    with pytest.raises(ConfigError, match="seed = "):
        train(sae, data(0), config, seed=seed)


EVERY_DICTIONARY = [("topk", {}), ("frozen", {}), ("ra", FREE_NORMS), *(("ra", more) for more in ARCHETYPAL)]


@pytest.mark.parametrize(("arm", "overrides"), EVERY_DICTIONARY)
def test_a_snapshot_is_the_model_rounded_to_bfloat16(tmp_path, arm, overrides):
    trained = run(arm, tmp_path, **overrides)
    kept = snapshot_sae(tmp_path, 20, trained.k, Normalizer(trained.mean, float(trained.scale)))
    assert torch.equal(kept.atoms(), trained.atoms().bfloat16().float())
    assert torch.equal(kept.W_enc, trained.W_enc.bfloat16().float())
    assert quality(kept, data(3)).r2 == pytest.approx(quality(trained, data(3)).r2, abs=0.02)


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


def test_rates_fall_linearly_to_zero_over_the_last_part_alone():
    config = configure({"preset": "smoke", "steps": 10, "decay": 0.4}).training
    assert [decayed(step, config) for step in range(11)] == pytest.approx([1] * 7 + [0.75, 0.5, 0.25, 0])
    assert decayed(10**6, replace(config, decay=0.0)) == 1


@pytest.mark.parametrize(("arm", "overrides"), [("topk", {}), *(("ra", more) for more in DENSE)])
def test_every_parameter_follows_the_schedule(arm, overrides):
    """After the same steps, an update at half the rate is half as long: W's by mirror descent in its logarithm."""
    found = []
    for steps in (10, 8):  # with decay 1, step 5 is taken at 0.5 and 0.375 of the rate
        sae, config = build(arm, **overrides)
        trainer = Trainer(sae, replace(config, decay=0.0))
        for step in range(5):
            trainer.train_step(data(step))
        before = {name: tensor.detach().clone() for name, tensor in sae.named_parameters()}
        trainer.config = replace(config, decay=1.0, steps=steps)
        trainer.train_step(data(5))
        found.append({name: tensor.detach() - before[name] for name, tensor in sae.named_parameters()})
    longer, shorter = found
    for name in ("W_enc", "b_enc", "b_dec"):
        torch.testing.assert_close(0.75 * longer[name], shorter[name], rtol=1e-3, atol=1e-6, msg=name)
    moved = "dictionary.W" if arm == "ra" else "dictionary.D"
    ratio = shorter[moved].norm() / longer[moved].norm()
    assert ratio == pytest.approx(0.75, abs=0.02)


def test_a_step_of_the_relaxation_is_shorter_than_its_radius_and_none_without_one():
    for delta in (0.0, 1e-3, 0.1, 100.0):
        sae, config = build("ra", delta=delta)
        rate = learning_rate_of_relax(sae.dictionary, config)
        assert rate * D_MODEL**0.5 <= RELAX_SHARE * delta * (1 + 1e-9)
    assert rate == pytest.approx(config.lr * float(sae.dictionary.C.norm(dim=1).median()))  # where the radius is wide


def test_raw_frame_leaves_the_decoder_bias_at_zero(tmp_path):
    sae, config = build("topk", steps=20)
    raw = SAE(sae.dictionary, sae.k, sae.mean, float(sae.scale), "raw")
    train(raw, data, config, tmp_path)
    assert raw.b_dec.abs().max() == 0
    loaded = load_sae(tmp_path / "sae.safetensors")
    assert (loaded.frame, loaded.b_dec.requires_grad) == ("raw", False)
    assert torch.equal(loaded(data(0)), raw(data(0)))


def test_without_a_folder_nothing_is_written_and_a_tensor_is_drawn_once_an_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = torch.arange(10.0)[:, None]
    batches = as_batches(x, 5, seed=3)
    epochs = [torch.cat([batches(2 * epoch), batches(2 * epoch + 1)]).flatten() for epoch in range(2)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(10))] * 2
    assert not torch.equal(*epochs)
    assert torch.equal(as_batches(x, 5, seed=3)(3), batches(3))
    assert as_batches(x, 99)(0).shape == (10, 1)
    sae, config = build("topk", steps=5, batch_size=64)
    before = sae.dictionary.D.detach().clone()
    assert train(sae, torch.cat([data(0), data(1)]), config) is sae
    assert not torch.equal(sae.dictionary.D, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_a_compiled_sae_is_trained_and_kept(tmp_path):
    sae, config = build("topk", steps=6)
    compiled = torch.compile(sae)
    assert inspect.unwrap(train)(compiled, data, config, tmp_path) is compiled
    assert torch.equal(load_sae(tmp_path / "sae.safetensors").W_enc, sae.W_enc)


def test_an_sae_that_could_not_be_kept_is_refused_before_it_is_trained(tmp_path):
    sae, config = build("topk", steps=2)
    sae.register_buffer("density", torch.zeros(48))
    train(sae, data, config)
    with pytest.raises(ConfigError, match="density is no tensor of an SAE"):
        train(sae, data, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "w_step"), [("W", "published"), ("relax", "mirror"), ("W", "mirror")])
def test_a_part_of_the_dictionary_that_was_frozen_by_hand_is_not_trained(name, w_step):
    sae, config = build("ra", w_step=w_step)
    getattr(sae.dictionary, name).requires_grad_(False)
    before = sae.W_enc.detach().clone()
    with pytest.raises(ConfigError, match=rf"dictionary\.{name} requires no gradient .*trainable=False"):
        train(sae, data, config)
    assert torch.equal(sae.W_enc, before)


def test_what_the_mirror_step_took_out_of_autograd_is_trained_on():
    sae, mirror = build("ra", w_step="mirror", steps=4)
    train(sae, data, mirror)
    for step in ("mirror", "published"):
        before = sae.dictionary.W.detach().clone()
        train(sae, data, replace(mirror, w_step=step))
        assert not torch.equal(sae.dictionary.W, before)
