"""SAELens' folder: round trips here, and against SAELens itself where `make interop` installed it."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import python_with
from random_saes import activations_of, random_sae
from safetensors.torch import load_file, save_file

from archsae_core.config import ConfigError, TrainingConfig
from archsae_core.interop import from_saelens, open_sae, to_saelens
from archsae_core.interop.saelens import CONFIG, OURS, WEIGHTS
from archsae_core.models.about import About
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE, load_sae, save_sae
from archsae_core.models.training import train

SIDE = Path(__file__).parents[1] / "saelens_side.py"

seeds = st.integers(0, 2**20)


def same(a: SAE, b: SAE) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal to 1e-5 of the largest entry."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1.0))


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_a_round_trip_gives_the_same_sae(seed, tmp_path_factory):
    sae = random_sae(seed)
    folder = to_saelens(sae, tmp_path_factory.mktemp("saelens"))
    back = from_saelens(folder)
    assert same(back, sae)
    assert (back.k, back.frame, back.about) == (sae.k, sae.frame, sae.about)
    assert back.b_dec.requires_grad == sae.b_dec.requires_grad
    for name in ("delta", "unit_norm"):
        assert getattr(back.dictionary, name, None) == getattr(sae.dictionary, name, None)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_without_our_file_codes_are_divided_by_the_scale_and_reconstructions_stay(seed, tmp_path_factory):
    sae = random_sae(seed)
    folder = to_saelens(sae, tmp_path_factory.mktemp("saelens"))
    (folder / OURS).unlink()
    plain, x = from_saelens(folder), activations_of(sae)
    codes, theirs = sae.encode(x), plain.encode(x)
    assert close(theirs.dense(sae.n_features) * sae.scale, codes.dense(sae.n_features))
    assert close(plain.decode(theirs), sae.decode(codes))
    assert plain.about.layer == sae.about.layer
    assert plain.about.excluded_positions == sae.about.excluded_positions


@pytest.fixture
def folder(tmp_path, seeded):
    """An exported archetypal SAE whose origin is known."""
    dictionary = ArchetypalDictionary(torch.randn(8, 6), torch.rand(10, 8).softmax(dim=1), delta=0.5)
    dictionary.project_()
    sae = SAE(dictionary, 3, torch.randn(6), 0.5)
    sae.about = About(
        model="HuggingFaceTB/SmolLM2-135M", layer=22, context=256, excluded_positions=(0,), text="bbc-news",
        arm="ra", seed=3, metrics={"r2": 0.8},
    )  # fmt: skip
    return to_saelens(sae, tmp_path / "saelens")


def test_metadata_tell_hook_layer_radius_seed_arm_and_what_was_left_out(folder):
    found = json.loads((folder / CONFIG).read_text())["metadata"]
    assert found["hook_name"] == "blocks.22.hook_resid_post"
    assert (found["model_name"], found["context_size"]) == ("HuggingFaceTB/SmolLM2-135M", 256)
    assert found["seqpos_slice"] == [1, None]
    own = found["archsae"]
    assert (own["layer"], own["delta"], own["seed"], own["arm"]) == (22, 0.5, 3, "ra")
    assert own["excluded_positions"] == [0]


def test_the_second_file_holds_weights_anchors_and_relaxation(folder):
    tensors = load_file(folder / OURS)
    assert {"dictionary.W", "dictionary.C", "dictionary.relax", "mean", "scale"} <= tensors.keys()
    assert "W_enc" not in tensors  # once is enough


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:100])


def other_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"W_dec": weights["W_dec"].flip(0)}, folder / WEIGHTS)


def fewer_features(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"W_dec": weights["W_dec"][:-1].clone()}, folder / WEIGHTS)


def negative_threshold(folder: Path) -> None:
    edit(folder, architecture="jumprelu")
    threshold = torch.ones(10).index_fill_(0, torch.tensor([2]), -1.0)
    save_file(load_file(folder / WEIGHTS) | {"threshold": threshold}, folder / WEIGHTS)
    (folder / OURS).unlink()


def spoiled(folder: Path, name: str, value: complex) -> None:
    weights = load_file(folder / WEIGHTS)
    weights[name] = weights[name].to(torch.tensor(value).dtype)
    weights[name].view(-1)[0] = value
    save_file(weights, folder / WEIGHTS)


def with_tensor(folder: Path, name: str, value: float) -> None:
    save_file(load_file(folder / WEIGHTS) | {name: torch.full((10,), value)}, folder / WEIGHTS)


FAULTS = {
    "no settings": (lambda folder: (folder / CONFIG).unlink(), "has no cfg.json: a SAELens folder holds"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no sae_weights.safetensors"),
    "no object": (lambda folder: (folder / CONFIG).write_text("[]"), "is no JSON object"),
    "cut": (lambda folder: cut(folder, WEIGHTS), "cannot be read .* copy or download it again"),
    "our file cut": (lambda folder: cut(folder, OURS), "archsae.safetensors cannot be read .* delete it"),
    "gated": (lambda folder: edit(folder, architecture="gated"), "architecture = 'gated' is not read here"),
    "gated, of topk": (
        lambda folder: edit(folder, architecture="gated", activation_fn="topk"),
        "architecture = 'gated' is not read here",
    ),
    "a flag in words": (
        lambda folder: edit(folder, apply_b_dec_to_input="false"),
        "apply_b_dec_to_input = 'false' must be true or false",
    ),
    "heads": (lambda folder: edit(folder, reshape_activations="hook_z"), "reshape_activations = 'hook_z' is not read"),
    "NaN": (lambda folder: spoiled(folder, "W_enc", float("nan")), "W_enc is not all finite real numbers"),
    "complex": (lambda folder: spoiled(folder, "b_enc", 1j), "b_enc is not all finite real numbers"),
    "no threshold": (lambda folder: edit(folder, architecture="jumprelu"), "threshold is missing"),
    "threshold": (negative_threshold, "threshold of -1 in feature 2: only JumpReLU SAEs whose"),
    "no architecture": (lambda folder: edit(folder, architecture="standard"), "architecture = 'standard'"),
    "layer norm": (lambda folder: edit(folder, normalize_activations="layer_norm"), "normalize_activations = 'layer"),
    "k": (lambda folder: (edit(folder, k=0), (folder / OURS).unlink()), "k = 0 must be a whole number from 1 to"),
    "older factor": (
        lambda folder: with_tensor(folder, "finetuning_scaling_factor", 3.0),
        "finetuning_scaling_factor of each code is not read",
    ),
    "factor": (lambda folder: with_tensor(folder, "scaling_factor", 3.0), "scaling_factor of each code is not read"),
    "magnitudes": (lambda folder: with_tensor(folder, "b_mag", 0.0), "b_mag is not read here: what is read has W_enc"),
    "shape": (fewer_features, r"W_dec has shape \[9, 6\], cfg.json asks for \[10, 6\]"),
    "two SAEs": (other_weights, "does not belong to sae_weights.safetensors: W_dec differs; delete it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_fix(folder, fault):
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        from_saelens(folder)


def test_a_factor_of_one_changes_nothing(folder):
    before = from_saelens(folder).atoms()
    with_tensor(folder, "scaling_factor", 1.0)
    assert from_saelens(folder).atoms().equal(before)


HOOKS = {
    "blocks.3.hook_resid_post": 3, "blocks.3.hook_resid_pre": 2, "blocks.0.hook_resid_pre": None,
    "blocks.3.hook_mlp_out": None, "gpt_neox.layers.3": 3, "model.layers.0": 0, "transformer.h.11": 11,
    "model.layers.3.mlp": None, "model.layers.3.mlp.experts.layers.0": None, "vision_model.encoder.layers.5": None,
    "transformer.h." + "9" * 5000: None, "layers": None,
}  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_tells_the_block_after_which_it_reads(folder, hook):
    (folder / OURS).unlink()
    edit(folder, metadata={"hook_name": hook})
    assert from_saelens(folder).about.layer == HOOKS[hook]


def test_an_sae_that_is_not_of_this_function_stays(folder):
    (folder / OURS).unlink()
    edit(folder, metadata={"sae_lens_version": "6.54.12"})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match=r"cfg\.json was written by something else and would be replaced"):
        to_saelens(random_sae(0), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, OURS])
def test_a_file_of_someone_else_s_stays(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} was written by something else"):
        to_saelens(random_sae(0), tmp_path)
    assert (tmp_path / name).read_text() == "mine"


SLICES = {
    "all": ([None], ()), "nothing given": (None, ()), "the first left out": ([1, None], (0,)),
    "an end": ([3], (3, 4, 5)),
    "both": ([1, 4], (0, 4, 5)), "from behind": ([-2, None], (0, 1, 2, 3)), "every other": ([None, None, 2], (1, 3, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICES)
def test_positions_are_left_out_as_python_s_slice_leaves_them_out(folder, name):
    given, excluded = SLICES[name]
    metadata = json.loads((folder / CONFIG).read_text())["metadata"] | {"context_size": 6, "seqpos_slice": given}
    edit(folder, metadata=metadata)
    (folder / OURS).unlink()
    sae = from_saelens(folder)
    assert sae.about.excluded_positions == excluded
    back = json.loads((to_saelens(sae, folder) / CONFIG).read_text())["metadata"]
    assert back["archsae"].get("excluded_positions", []) == list(excluded)
    if excluded and name != "every other":
        assert list(range(6))[slice(*back["seqpos_slice"])] == [each for each in range(6) if each not in excluded]


def test_a_folder_of_version_5_is_read(folder):
    config = json.loads((folder / CONFIG).read_text())
    about, k = config.pop("metadata"), config.pop("k")
    about.pop("sae_lens_version")
    config |= about | {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": k}}
    config["normalize_activations"] = False
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / OURS).unlink()
    found = from_saelens(folder)
    assert found.k == 3
    assert found.about.layer == 22


# --- SAELens itself, in an environment of its own ---

ASKED = {
    "plain": {},
    "decoder norms count": {"rescale_acts_by_decoder_norm": True},
    "decoder bias not taken off": {"apply_b_dec_to_input": False},
    "both": {"rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False},
    "half precision": {"dtype": "bfloat16"},
    "batchtopk": {"kind": "batchtopk"},
    "jumprelu": {"kind": "jumprelu", "k": None},
    "jumprelu, decoder bias not taken off": {"kind": "jumprelu", "k": None, "apply_b_dec_to_input": False},
}
"""Settings of the SAEs that SAELens itself saves."""


@pytest.fixture(scope="module")
def made_by_saelens(tmp_path_factory):
    """Folder with our exports, and with SAEs that SAELens saved, each beside what SAELens makes of activations."""
    python, root = python_with("saelens"), tmp_path_factory.mktemp("peers")
    for number in range(12):
        sae = random_sae(number)
        folder = to_saelens(sae, root / f"ours-{number}")
        save_file({"x": activations_of(sae)}, folder / "x.safetensors")
    for name, settings_ in ASKED.items():
        folder = root / f"asked-{name}"
        folder.mkdir()
        asked = {"d_in": 8, "d_sae": 20, "k": 3, "seed": 1} | settings_
        asked = {key: value for key, value in asked.items() if value is not None}
        (folder / "asked.json").write_text(json.dumps(asked))
    subprocess.run([python, str(SIDE), str(root)], check=True)
    return root


@pytest.mark.parametrize("number", range(12))
def test_saelens_gives_our_codes_over_the_scale_and_our_reconstructions(made_by_saelens, number):
    sae, theirs = random_sae(number), load_file(made_by_saelens / f"ours-{number}" / "theirs.safetensors")
    codes = sae.encode(theirs["x"])
    assert close(theirs["codes"] * sae.scale, codes.dense(sae.n_features))
    assert close(theirs["x_hat"], sae.decode(codes))
    assert close(theirs["forward"], sae.decode(codes))


def test_saelens_reads_our_metadata(made_by_saelens):
    number = next(number for number in range(12) if random_sae(number).about.layer is not None)
    found, about = made_by_saelens / f"ours-{number}" / "metadata.json", random_sae(number).about
    found = json.loads(found.read_text())
    assert found["hook_name"] == f"blocks.{about.layer}.hook_resid_post"
    assert found["archsae"]["layer"] == about.layer


@pytest.mark.parametrize("name", ASKED)
def test_an_sae_that_saelens_saved_gives_its_codes_and_reconstructions_here(made_by_saelens, name):
    folder = made_by_saelens / f"asked-{name}"
    sae, theirs = from_saelens(folder), load_file(folder / "theirs.safetensors")
    codes = sae.encode(theirs["x"])
    # where thresholds differ, each code counts in units of its own
    units = load_file(folder / WEIGHTS)["threshold"] if name.startswith("jumprelu") else torch.ones(())
    assert close(codes.dense(sae.n_features) * units, theirs["codes"])
    assert close(sae.decode(codes), theirs["x_hat"])
    assert sae.k == (20 if name.startswith("jumprelu") else 3)  # what it was trained for is not known of the first


LOADED = """
import sys
from safetensors.torch import save_file
from sae_lens import SAE
save_file({"W_dec": SAE.from_pretrained(*sys.argv[1:3]).W_dec.detach()}, sys.argv[3])
"""


def test_a_name_on_the_hub_is_a_release_and_an_id_to_saelens(hub, tmp_path):
    """Where the release is a repository and the id a folder in it, both open the same SAE."""
    to_saelens(random_sae(1), hub.repository("user/saes") / "layer.1")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "theirs")}
    command = [python_with("saelens"), "-c", LOADED, "user/saes", "layer.1", str(tmp_path / "theirs.safetensors")]
    subprocess.run(command, env=environment, check=True)
    mine = open_sae("user/saes/layer.1").atoms()
    assert torch.allclose(load_file(tmp_path / "theirs.safetensors")["W_dec"], mine, atol=1e-6)


@pytest.mark.parametrize("k", [None, 7.0])
def test_codes_a_token_that_nobody_recorded_are_no_fact(tmp_path, k):
    """SAELens does not save for how many a JumpReLU SAE was trained, but in the metadata of a later version."""
    generator = torch.Generator().manual_seed(0)
    weights = {"W_enc": torch.randn(8, 128, generator=generator), "W_dec": torch.randn(128, 8, generator=generator)}
    weights |= {"b_enc": torch.zeros(128), "b_dec": torch.zeros(8), "threshold": torch.full((128,), 0.5)}
    save_file(weights, tmp_path / WEIGHTS)
    metadata = {} if k is None else {"training_architecture_details": {"k": k}}
    config = {"architecture": "jumprelu", "d_in": 8, "d_sae": 128, "metadata": metadata}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    sae = from_saelens(tmp_path)
    card, x = str(sae.generate_model_card()), torch.randn(64, 8, generator=generator)
    steps = TrainingConfig(steps=1, batch_size=32)
    if k is None:
        assert sae.about.k_recorded is False
        assert "features are active" not in card
        assert "| active features a token (k) | not recorded |" in card
        assert "JumpReLU" in card
        assert "Bussmann" not in card
        with pytest.raises(ConfigError, match=r"k = 64: it is a guess.*set sae\.k"):
            train(sae, x, steps)
        save_sae(sae, tmp_path / "sae.safetensors")
        assert load_sae(tmp_path / "sae.safetensors").about.k_recorded is False
        sae.k, sae.about = 9, replace(sae.about, k_recorded=None)
    else:
        assert (sae.k, sae.about.k_recorded) == (7, None)
        assert "about 7 of 128 features are active a token" in card
    train(sae, x, steps)


def test_weights_that_were_changed_in_saelens_are_not_replaced(tmp_path):
    sae = random_sae(3)
    to_saelens(sae, tmp_path)
    to_saelens(sae, tmp_path)
    other_weights(tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(ConfigError, match="was changed since it was written and would be replaced"):
        to_saelens(sae, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize(
    "hook", ["transformer.h.1.mlp", "model.layers.1.self_attn", "model.norm", "blocks.1.hook_mlp_out"]
)
def test_every_place_but_the_residual_stream_after_a_block_is_said(hook):
    assert About(source=f"SAELens, {hook}").reads_elsewhere
    assert not About(source=f"SAELens, {hook}", layer=1).reads_elsewhere
    assert not About(source="SAELens").reads_elsewhere
