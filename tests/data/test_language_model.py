import contextlib
import time

import pytest
import torch
import transformers
from torch import nn

from archsae_core.data import language_model, model_files, random_model
from archsae_core.data.language_model import (
    ModelError,
    blocks,
    check_layer,
    load_model,
    load_tokenizer,
    model_fingerprint,
    residuals_after,
    resolve_device,
    resolve_dtype,
)
from archsae_core.kernels.processor import fast_bfloat16
from archsae_study.settings.config import ConfigError, configure
from bad_inputs import change_json, change_weights, drop_weight, own_code, reshape_weight, save_model, truncate

SMALL = dict(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
CONFIGS = {
    "gpt2": transformers.GPT2Config(n_layer=3, n_head=2, n_embd=16, vocab_size=50),
    "llama": transformers.LlamaConfig(**SMALL, num_key_value_heads=1),
    "gpt-neox": transformers.GPTNeoXConfig(**SMALL),
    "qwen2": transformers.Qwen2Config(**SMALL, num_key_value_heads=2),
    "opt": transformers.OPTConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=16
    ),
}


def final_norm(name, model):
    return {
        "gpt2": lambda: model.transformer.ln_f,
        "gpt-neox": lambda: model.gpt_neox.final_layer_norm,
        "opt": lambda: model.model.decoder.final_layer_norm,
    }.get(name, lambda: model.model.norm)()


@pytest.fixture(scope="module", params=CONFIGS)
def architecture(request):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms start at one and biases at zero: nothing may be trivial
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return request.param, model


@pytest.fixture
def batch():
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    return ids, mask


def smoke(**changes):
    return configure({"preset": "smoke", **changes})


# --- the residual stream ---


@pytest.mark.parametrize("layer", [0, 1])
def test_residual_is_the_hidden_state_after_that_block(architecture, batch, layer):
    _, model = architecture
    ids, mask = batch
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer + 1]
    assert torch.equal(residuals_after(model, [layer], ids, mask)[0], expected)


def test_after_the_last_block_the_final_norm_is_not_applied(architecture, batch):
    name, model = architecture
    ids, mask = batch
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[3]
        residual = residuals_after(model, [2], ids, mask)[0]
        assert not torch.allclose(residual, expected)
        torch.testing.assert_close(final_norm(name, model)(residual), expected)


def test_padding_changes_no_real_position(architecture, batch):
    _, model = architecture
    ids, mask = batch
    alone = residuals_after(model, [1], ids[1:, :4], mask[1:, :4])[0]
    torch.testing.assert_close(residuals_after(model, [1], ids, mask)[0][1:, :4], alone, rtol=1e-5, atol=1e-5)


def test_later_blocks_are_not_run_and_no_hook_stays(batch):
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]).eval()
    expected = residuals_after(model, [1], *batch)[0]
    model.model.layers[2].forward = None
    assert torch.equal(residuals_after(model, [1], *batch)[0], expected)
    assert not blocks(model)[1]._forward_hooks


def test_blocks_are_the_outermost_list_of_that_length():
    model = transformers.GPT2LMHeadModel(CONFIGS["gpt2"])
    model.transformer.wte.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
    model.heads = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
    assert blocks(model) is model.transformer.h


def test_a_block_that_returns_something_else_is_refused(batch):
    model = transformers.GPT2LMHeadModel(CONFIGS["gpt2"]).eval()
    model.transformer.h[1].register_forward_hook(lambda module, inputs, output: output[..., :5])
    assert residuals_after(model, [0], *batch)[0].shape == (2, 7, 16)
    with pytest.raises(ModelError, match="block 1 of GPT2LMHeadModel"):
        residuals_after(model, [1], *batch)


def test_a_model_without_blocks_is_refused():
    model = transformers.GPT2LMHeadModel(CONFIGS["gpt2"])
    model.transformer.h = nn.ModuleList()
    with pytest.raises(ModelError, match="no list of 3 blocks"):
        blocks(model)


@pytest.mark.parametrize("layer", [-1, 3])
def test_layer_out_of_range_names_the_range(layer):
    with pytest.raises(ConfigError, match=rf"layer = {layer}: .* 0 … 2"):
        check_layer(CONFIGS["gpt2"], layer)


def test_silence_ends_with_the_block_even_after_an_error():
    logging = transformers.utils.logging
    for had_bar in (False, True):
        (logging.enable_progress_bar if had_bar else logging.disable_progress_bar)()
        with contextlib.suppress(KeyError), language_model.quiet_transformers():
            assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == (False, logging.CRITICAL)
            raise KeyError
        assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == (had_bar, logging.WARNING)


# --- random-gpt2 ---


def test_random_model_is_the_same_every_time_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = load_model(smoke().language_model)
    assert torch.equal(torch.rand(2), expected)
    weights = load_model(smoke().language_model).state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in first.state_dict().items())
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_random_tokenizer_restores_any_text():
    tokenizer = load_tokenizer(smoke().language_model)
    text = "baki <b> & R&D – Ünïcode 😀"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert max(tokenizer(text).input_ids) < load_model(smoke().language_model).config.vocab_size


def test_random_model_has_room_for_the_context():
    assert load_model(smoke(context=100).language_model).config.n_positions == 100
    assert model_fingerprint(smoke(context=100).language_model) != model_fingerprint(smoke().language_model)


# --- device and dtype ---


def test_device(monkeypatch):
    for available, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert resolve_device(smoke().language_model).type == expected
    assert resolve_device(smoke(device="cpu").language_model).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device = 'cuda'"):
        resolve_device(smoke(device="cuda").language_model)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(language_model, "fast_bfloat16", fast_bfloat16.__wrapped__)
    cpu = torch.device("cpu")
    assert resolve_dtype(smoke(dtype="auto").language_model, cpu) == expected
    assert resolve_dtype(smoke(dtype="float32").language_model, cpu) == torch.float32
    assert resolve_dtype(smoke(dtype="bfloat16").language_model, cpu) == torch.bfloat16


def test_bfloat16_is_refused_on_a_gpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert resolve_dtype(smoke(dtype="auto").language_model, torch.device("cuda")) == torch.float32
    with pytest.raises(ConfigError, match="dtype = 'bfloat16'"):
        resolve_dtype(smoke(dtype="bfloat16").language_model, torch.device("cuda"))


def test_weights_have_the_wanted_dtype(folder):
    assert load_model(smoke(model=str(folder), dtype="bfloat16").language_model).dtype == torch.bfloat16
    assert load_model(smoke(dtype="bfloat16").language_model).dtype == torch.bfloat16


# --- a local folder in the hub's layout ---


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model")


def test_local_folder_gives_the_saved_model_and_tokenizer(folder, batch, capfd):
    ids, mask = batch
    config = smoke(model=str(folder))
    model, original = load_model(config.language_model), load_model(smoke().language_model)
    assert torch.equal(residuals_after(model, [1], ids, mask)[0], residuals_after(original, [1], ids, mask)[0])
    assert (
        load_tokenizer(config.language_model)("sea").input_ids
        == load_tokenizer(smoke().language_model)("sea").input_ids
    )
    assert capfd.readouterr() == ("", "")


def test_fingerprint_follows_the_weights_and_nothing_else(folder):
    config = smoke(model=str(folder))
    before = model_fingerprint(config.language_model)
    (folder / "README.md").write_text("changed")
    assert model_fingerprint(config.language_model) == before
    change_weights(folder, lambda weights: weights["transformer.ln_f.bias"].add_(1))
    assert model_fingerprint(config.language_model) != before


@pytest.mark.parametrize("damage", [drop_weight, reshape_weight, truncate, own_code])
def test_a_damaged_folder_is_refused_silently(folder, damage, capfd):
    """The error of each stands in bad_inputs.py; here: transformers says nothing beside it."""
    damage(folder)
    capfd.readouterr()
    with pytest.raises(ModelError, match=rf"model = .*{folder.name}"):
        load_model(smoke(model=str(folder)).language_model)
    assert capfd.readouterr() == ("", "")


def fewer_blocks(folder):
    change_json(folder / "config.json", n_layer=2)


def scaled(folder):
    change_weights(folder, lambda weights: weights.update({"transformer.h.0.mlp.c_fc.weight_scale": torch.ones(1)}))


def adapted(folder):
    (folder / "adapter_config.json").write_text("{}")


def no_number_of_blocks(folder):
    change_json(folder / "config.json", n_layer=None)


def odd_quantisation(folder):
    change_json(folder / "config.json", quantization_config="x")


def odd_type(folder):
    change_json(folder / "config.json", dtype="floaty")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (fewer_blocks, r"config\.json has no place for \d+ weights, such as transformer\.h\.2\."),
        (scaled, r"config\.json has no place for 1 weights, such as transformer\.h\.0\.mlp\.c_fc\.weight_scale"),
        (adapted, "it is an adapter"),
        (no_number_of_blocks, ""),
        (odd_quantisation, ""),
        (odd_type, ""),
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused(folder, damage, reason):
    damage(folder)
    with pytest.raises(ModelError, match=rf"model = .*{folder.name}.*cannot be loaded \(.*{reason}"):
        load_model(smoke(model=str(folder)).language_model)


NO_FAULT = ("vision_tower.h.7.weight", "transformer.h.0.attn.masked_bias", "transformer.h.1.attn.attention.bias",
            "score.weight", "transformer.h.2.attn.rotary_emb.inv_freq")  # fmt: skip


@pytest.mark.parametrize("name", NO_FAULT)
def test_what_changes_nothing_of_the_language_model_is_no_fault(folder, name):
    change_weights(folder, lambda weights: weights.update({name: torch.ones(1)}))
    load_model(smoke(model=str(folder)).language_model)


def test_what_does_not_suit_the_model_is_said_before_weights_are_read(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"layer = 3: .* 0 … 2"):
        load_model(smoke(model=str(folder), layer=3).language_model)
    with pytest.raises(ConfigError, match=r"context = 65: .* at most 64 tokens"):
        load_model(smoke(model=str(folder), context=65).language_model)


# --- the hub ---


def test_hub_model_is_pinned_cached_and_later_needs_no_network(hub, batch, capfd):
    ids, mask = batch
    with language_model.quiet_transformers():
        random_model.gpt2(32).save_pretrained(hub.repository("user/tiny"))
        random_model.tokenizer().save_pretrained(hub.root / "user/tiny")
    (hub.root / "user/tiny/pytorch_model.bin").write_bytes(b"never fetched")
    config = smoke(model="user/tiny")
    assert model_fingerprint(config.language_model) == f"user/tiny@{'1' * 40}"
    expected = residuals_after(load_model(smoke().language_model), [1], ids, mask)[0]
    assert torch.equal(residuals_after(load_model(config.language_model), [1], ids, mask)[0], expected)
    assert not list(hub.root.parent.glob("hub-cache/**/pytorch_model.bin"))
    hub.close()
    model_files._pinned.cache_clear()
    assert torch.equal(residuals_after(load_model(config.language_model), [1], ids, mask)[0], expected)
    assert (
        load_tokenizer(config.language_model)("sea").input_ids
        == load_tokenizer(smoke().language_model)("sea").input_ids
    )
    assert model_fingerprint(config.language_model) == f"user/tiny@{'1' * 40}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "reason"), [("user/gated", "accept its terms"), ("user/none", "no such"), ("a b", "no such")]
)
def test_hub_refusals_name_the_model_and_the_fix(hub, name, reason):
    with pytest.raises(ModelError, match=f"model = '{name}'.*{reason}"):
        load_model(smoke(model=name).language_model)


def test_unreachable_hub_is_said_within_seconds(hub):
    hub.close()
    start = time.monotonic()
    for use in (load_model, load_tokenizer, model_fingerprint):
        with pytest.raises(ModelError, match=r"model = 'user/tiny'.*cannot be reached.*smollm2-135m"):
            use(smoke(model="user/tiny").language_model)
    assert time.monotonic() - start < 5


def test_outputs_have_names_whatever_the_settings_say(tmp_path):
    folder = save_model(tmp_path / "model")
    change_json(folder / "config.json", return_dict=False)
    model = load_model(configure({"preset": "smoke", "model": str(folder)}).language_model)
    assert model(torch.ones(1, 4, dtype=torch.int64)).logits.shape[:2] == (1, 4)
