import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy import ARCHITECTURES, D_MODEL, language_model, token_set, unit_sae

from archsae_core.config import ConfigError
from archsae_core.data.language_model import ModelError, blocks, residuals_after
from archsae_core.data.model_check import check_model
from archsae_core.data.splice import readout, replaced_positions, run_prefix, splice
from archsae_core.metrics import behaviour as scoring
from archsae_core.metrics.behaviour import behaviour
from archsae_core.models.about import About

LAYER = 1
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def models():
    return {name: language_model(name) for name in ARCHITECTURES}


def batch():
    ids = torch.from_numpy(np.random.default_rng(1).integers(1, 50, (3, 9)))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, 3:] = 0
    return ids, mask


def hooked(model, ids, mask, replace):
    """Logits by the plain way: the whole model with a hook that edits what block LAYER returns."""

    def edit(module, inputs, output):
        residual = (output[0] if isinstance(output, tuple) else output).clone()
        where = mask.bool()
        where[:, 0] = False
        residual[where] = replace(residual[where])
        return (residual, *output[1:]) if isinstance(output, tuple) else residual

    handle = blocks(model)[LAYER].register_forward_hook(edit)
    try:
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    finally:
        handle.remove()


# --- splicing ---


@each_architecture
def test_splice_equals_a_plain_hook(models, architecture):
    model, (ids, mask) = models[architecture], batch()
    spliced = splice(model, LAYER, ids, mask, lambda x: 2 * x.roll(1, dims=1))
    expected = hooked(model, ids, mask, lambda x: 2 * x.roll(1, dims=1))
    assert torch.allclose(spliced[mask.bool()], expected[mask.bool()], atol=1e-6)
    clean = model(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(spliced[mask.bool()], clean[mask.bool()], atol=1e-2)


@each_architecture
def test_the_original_residual_gives_the_original_logits_and_leaves_the_model_alone(models, architecture):
    model, (ids, mask) = models[architecture], batch()
    clean = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(splice(model, LAYER, ids, mask, lambda x: x), clean)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, clean)
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in model.modules())


def test_an_error_while_splicing_leaves_the_model_alone(models):
    model, (ids, mask) = models["llama"], batch()
    clean = model(input_ids=ids, attention_mask=mask).logits
    broken = blocks(model)[2].register_forward_hook(lambda *args: 1 / 0)  # after the layer
    with pytest.raises(ZeroDivisionError):
        splice(model, LAYER, ids, mask, lambda x: x)
    broken.remove()
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, clean)


def test_a_forward_that_a_block_brought_along_survives(models):
    model, (ids, mask), calls = models["llama"], batch(), []
    block = blocks(model)[0]
    original = block.forward
    block.forward = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)  # as accelerate does
    try:
        splice(model, LAYER, ids, mask, lambda x: x)
        model(input_ids=ids, attention_mask=mask)
    finally:
        del block.forward
    assert len(calls) == 2  # once to splice, once after


@pytest.mark.parametrize("side", ["right", "left"])
def test_position_0_and_padding_keep_their_residual(side):
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    expected = torch.tensor([[False, True, True], [False, True, False]])
    if side == "left":
        mask, expected = torch.tensor([[1, 1, 1], [0, 1, 1]]), torch.tensor([[0, 1, 1], [0, 0, 1]]).bool()
    assert torch.equal(replaced_positions(mask), expected)


@each_architecture
def test_readout_is_norm_and_unembedding(models, architecture):
    model, (ids, mask) = models[architecture], batch()
    last = run_prefix(model, 2, ids, mask).residual  # what the final norm reads
    logits = model(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(readout(model, last[0]), logits[0], atol=1e-5)


# --- scores ---


def full_scores(model, tokens, replace):
    """CE and KL of every scored position, window by window, on whole logits."""
    found = []
    for ids in tokens.ids:
        ids = torch.from_numpy(ids.astype(np.int64))[None]
        clean = model(input_ids=ids).logits[0, 1:-1]
        spliced = hooked(model, ids, torch.ones_like(ids), replace)[0, 1:-1]
        ce = [F.cross_entropy(logits, ids[0, 2:], reduction="none") for logits in (clean, spliced)]
        kl = F.kl_div(spliced.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none").sum(1)
        found.append(torch.stack([*ce, kl]))
    return torch.cat(found, dim=1).double().mean(dim=1).tolist()


@each_architecture
@pytest.mark.parametrize("at_once", [2**23, 120])
def test_ce_and_kl_equal_those_of_whole_logits(models, architecture, at_once, monkeypatch):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", at_once)
    model, tokens = models[architecture], token_set([9, 4, 6, 2, 7], [0, 0, 1, 2, 5])
    sae, mean = unit_sae(D_MODEL, D_MODEL, k=3), torch.linspace(-1, 1, D_MODEL)
    found = behaviour(model, LAYER, tokens, {"half": sae}, mean, batch_size=2)
    assert found["n_tokens"] == 7 + 2 + 4 + 0 + 5
    assert found["n_documents"] == 3  # a window of 2 tokens has nothing to score
    for name, replace in (("half", sae.forward), ("mean", lambda x: mean.expand_as(x)), ("zero", torch.zeros_like)):
        clean, ce, kl = full_scores(model, tokens, replace)
        assert found["clean"]["ce"] == pytest.approx(clean, abs=1e-5)
        assert found["arms"][name]["ce"] == pytest.approx(ce, abs=1e-5)
        assert found["arms"][name]["kl"] == pytest.approx(kl, abs=1e-5)


def scored(model, saes, **options):
    return behaviour(model, LAYER, token_set([9] * 8, list(range(8))), saes, torch.zeros(D_MODEL), **options)


def test_a_perfect_reconstruction_recovers_everything_and_the_ablation_nothing(models):
    found = scored(models["gpt2"], {"perfect": unit_sae(2 * D_MODEL, D_MODEL, k=D_MODEL)})["arms"]
    assert found["perfect"]["kl"] == pytest.approx(0, abs=1e-6)
    assert found["perfect"]["ce_increase"] == pytest.approx(0, abs=1e-6)
    for ablation in ("mean", "zero"):
        harmful = found[ablation]["ce_increase"] > 0
        assert found[ablation][f"recovered_{ablation}"] == (0 if harmful else None)
        recovered = found["perfect"][f"recovered_{ablation}"]
        assert recovered == pytest.approx(1, abs=1e-4) if harmful else recovered is None


def test_recovered_by_hand():
    # two documents, 10 tokens each: clean CE 1 and 3, SAE 2 and 4, mean ablation 5 and 7, zero ablation 1 and 3
    table = np.array([[10.0, 10, 50, 0, 10, 0, 20, 5], [10, 30, 70, 0, 30, 0, 40, 15]])
    found = scoring.summarise(np.array([4, 9]), table, ["mean", "zero", "sae"], seed=0)
    sae = found["arms"]["sae"]
    assert (sae["ce"], sae["kl"], sae["ce_increase"]) == (3, 1, 1)
    assert sae["recovered_mean"] == (120 - 60) / (120 - 40)
    assert sae["recovered_zero"] is None  # the ablation does no harm
    assert sae["intervals"]["ce"] == [2, 4]
    assert sae["intervals"]["recovered_mean"] == [0.75, 0.75]
    assert sae["intervals"]["recovered_zero"] is None
    assert found["per_document"]["document"] == [4, 9]
    assert found["per_document"]["sae_kl"] == [5, 15]


def test_early_blocks_run_once_a_batch(models):
    model, calls = models["llama"], []
    hooks = [
        block.self_attn.register_forward_hook(lambda *args, i=i: calls.append(i))
        for i, block in enumerate(blocks(model))
    ]
    scored(model, {"sae": unit_sae(D_MODEL, D_MODEL)}, batch_size=8)
    for hook in hooks:
        hook.remove()
    assert [calls.count(i) for i in range(3)] == [1, 1, 4]  # clean, mean, zero and the SAE


def test_outliers_keep_their_residual(models):
    found = scored(models["llama"], {}, max_norm=0.0)
    assert found["n_kept_outliers"] == 8 * 8
    assert found["arms"]["zero"]["kl"] == 0
    assert scored(models["llama"], {})["n_kept_outliers"] == 0


def test_budget_takes_whole_windows_of_many_documents(models):
    found = scored(models["gpt2"], {}, max_tokens=20)
    assert (found["n_documents"], found["n_tokens"]) == (3, 3 * 7)
    documents = {
        tuple(scored(models["gpt2"], {}, max_tokens=20, seed=seed)["per_document"]["document"]) for seed in range(5)
    }
    assert len(documents) > 1
    assert scored(models["gpt2"], {}, max_tokens=10_000)["n_documents"] == 8


def test_result_is_json(models):
    json.dumps(scored(models["neox"], {"sae": unit_sae(D_MODEL, D_MODEL)}), allow_nan=False)


def test_errors_name_what_is_wrong(models):
    with pytest.raises(ValueError, match="'mean'"):
        scored(models["gpt2"], {"mean": unit_sae(D_MODEL, D_MODEL)})
    with pytest.raises(ValueError, match="fewer than 3 tokens"):
        behaviour(models["gpt2"], LAYER, token_set([2, 2], [0, 1]), {}, torch.zeros(D_MODEL))


@pytest.mark.parametrize(
    ("layer", "options", "error"),
    [
        (-1, {}, "layer = -1: the model has 3 blocks: use 0 … 2"),
        (99, {}, r"layer = 99: the model has 3 blocks: use 0 … 2"),
        (LAYER, {"max_tokens": 0}, "max_tokens = 0: must be at least 1"),
        (LAYER, {"batch_size": -1}, "batch_size = -1: must be at least 1"),
        (LAYER, {"max_norm": float("nan")}, "max_norm = nan: must be 0 or larger, and finite"),
    ],
)
def test_what_would_score_something_else_is_refused(models, layer, options, error):
    with pytest.raises(ConfigError, match=error):
        behaviour(models["gpt2"], layer, token_set([9], [0]), {}, torch.zeros(D_MODEL), **options)


def test_a_mean_of_another_width_is_refused(models):
    with pytest.raises(ConfigError, match=rf"mean is \[1\]: it must be a tensor of the shape \[{D_MODEL}\]"):
        behaviour(models["gpt2"], LAYER, token_set([9], [0]), {}, torch.zeros(1))


def test_what_reads_a_model_in_training_mode_is_refused():
    model, (ids, mask) = language_model("gpt2").train(), batch()
    for read in (lambda: residuals_after(model, [LAYER], ids, mask), lambda: run_prefix(model, LAYER, ids, mask)):
        with pytest.raises(ModelError, match="eval"):
            read()


def test_an_sae_of_another_layer_is_told_of(models):
    sae = unit_sae(D_MODEL, D_MODEL)
    sae.about = About(layer=LAYER)
    scored(models["gpt2"], {"own": sae})
    sae.about = About(layer=LAYER + 1)
    with pytest.warns(UserWarning, match=f"'other' was trained at layer {LAYER + 1}: .*spliced in after layer {LAYER}"):
        scored(models["gpt2"], {"other": sae})


def test_a_model_in_training_mode_is_refused(models):
    model = models["gpt2"].train()
    try:
        with pytest.raises(ModelError, match=r"it is in training mode, .* call model\.eval\(\)"):
            scored(model, {})
        with pytest.raises(ModelError, match="it is in training mode"):
            check_model(model, LAYER, 8)
    finally:
        model.eval()


def test_a_column_that_there_is_not_is_named():
    sums = scoring.SplicedSums(np.arange(3), np.array([[10.0, 30, 33, 1, 34, 1]] * 3), ["a", "b"], 0)
    assert scoring.contrast(sums, "a_ce", "b_ce").estimate == pytest.approx(-0.1)
    for plus, minus in (("a_ce", "b-ce"), ("A_ce", "b_ce")):
        with pytest.raises(ConfigError, match=r"(plus|minus) = .*must be one of tokens, clean_ce, a_ce"):
            scoring.contrast(sums, plus, minus)


def test_a_replacement_is_not_called_as_the_model_itself(models):
    with pytest.raises(ConfigError, match="replacements: 'clean'"):
        scoring.spliced_sums(models["gpt2"], LAYER, token_set([9], [0]), {"clean": torch.zeros_like})


def test_threads_that_share_a_model_do_not_meet_each_other_s_hooks(models):
    """Batches of one shape: a residual of another thread would be taken without a word."""
    model = models["gpt2"]
    batches = [torch.from_numpy(np.random.default_rng(seed).integers(1, 50, (3, 9))) for seed in range(6)]
    mask = torch.ones_like(batches[0])
    expected = [splice(model, LAYER, ids, mask, torch.zeros_like) for ids in batches]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            found = pool.map(lambda ids: splice(model, LAYER, ids, mask, torch.zeros_like), batches)
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
            residuals = pool.map(lambda ids: residuals_after(model, [LAYER], ids, mask)[0], batches)
            for residual, ids in zip(residuals, batches, strict=True):
                assert torch.allclose(residual, residuals_after(model, [LAYER], ids, mask)[0], atol=1e-5)
