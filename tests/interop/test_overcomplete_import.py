"""SAEs that overcomplete 0.3.0 trained, as modules and as state dicts, against what it makes of them itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peers import overcomplete_site
from safetensors.torch import load_file, save_file

from archsae_core.config import ConfigError
from archsae_core.interop import from_overcomplete
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE, load_sae

ROOT = Path(__file__).parents[2]
SIDE = ROOT / "tests" / "overcomplete_saes.py"
K = 3
ARCHETYPAL = ("ra", "ra without multiplier", "ra tied", "ra untied", "ra of few anchors, untrained")
FREE = ("topk", "topk with multiplier")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with the state dict, codes and reconstructions of every case."""
    out = tmp_path_factory.mktemp("overcomplete")
    command = [sys.executable, "-W", "ignore", str(SIDE), str(overcomplete_site()), str(out)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return out


def agrees(sae: SAE, made: Path, name: str) -> None:
    theirs = load_file(made / f"{name} made.safetensors")
    codes = sae.encode(theirs["x"])
    assert torch.allclose(codes.dense(sae.n_features), theirs["codes"], rtol=1e-5, atol=1e-5)
    assert torch.allclose(sae.decode(codes), theirs["x_hat"], rtol=1e-5, atol=1e-5)
    assert theirs["codes"].count_nonzero() > 64, "a case that never fires compares nothing"


@pytest.mark.parametrize("name", [*ARCHETYPAL, *FREE])
def test_a_state_dict_gives_its_codes_and_reconstructions(made, name):
    sae = from_overcomplete(made / f"{name}.safetensors", k=K)
    agrees(sae, made, name)
    assert isinstance(sae.dictionary, ArchetypalDictionary) == (name in ARCHETYPAL)


@pytest.mark.parametrize("name", [*ARCHETYPAL, *FREE, "topk of free norms"])
def test_a_module_gives_its_codes_and_reconstructions(made, name):
    sae = load_sae(made / f"{name} ours.safetensors")
    agrees(sae, made, name)
    assert sae.k == K


@pytest.mark.parametrize("name", ARCHETYPAL)
def test_an_archetypal_dictionary_keeps_its_constraint(made, name):
    sae = load_sae(made / f"{name} ours.safetensors")
    assert sae.dictionary.delta == (1.0 if name in ("ra without multiplier", "ra of few anchors, untrained") else 0.2)
    assert sae.dictionary.relax.norm(dim=1).max() <= sae.dictionary.delta
    if name != "ra of few anchors, untrained":
        assert sae.dictionary.violation() <= 1e-6


def test_a_row_without_a_positive_weight_stays_what_it_is_there(made):
    """overcomplete starts atoms beyond the number of anchors with no weight at all: they are Λ alone."""
    sae = load_sae(made / "ra of few anchors, untrained ours.safetensors")
    empty = sae.dictionary.W.sum(dim=1) == 0
    assert empty.any()
    assert torch.equal(sae.dictionary.hull_points()[empty], torch.zeros(int(empty.sum()), 6))


def test_a_radius_that_is_not_given_is_that_of_the_longest_row(made):
    found = from_overcomplete(made / "ra.safetensors", k=K).dictionary
    assert found.delta == pytest.approx(0.2, rel=1e-4)
    assert from_overcomplete(made / "ra.safetensors", k=K, delta=0.05).dictionary.relax.norm(dim=1).max() <= 0.05


def test_a_state_dict_does_not_hold_k(made):
    with pytest.raises(ConfigError, match=r"does not hold how many codes a token has: pass k=…"):
        from_overcomplete(made / "ra.safetensors")


def test_free_norms_are_not_guessed(made):
    with pytest.raises(ConfigError, match=r"are not normalised.* call sae.eval\(\) before .* or pass the SAE itself"):
        from_overcomplete(made / "topk of free norms.safetensors", k=K)


def test_an_encoder_that_is_not_linear_is_named(made):
    with pytest.raises(ConfigError, match=r"encoder part 'encoder\.\S+' is not linear"):
        from_overcomplete(made / "topk of an MLP.safetensors", k=K)
    assert "is not linear" in (made / "topk of an MLP.txt").read_text()


def test_another_activation_than_topk_is_named(made):
    assert "RAJumpSAE has no top_k" in (made / "jump.txt").read_text()
    with pytest.raises(ConfigError, match=r"'thresholds' .* of another activation than TopK"):
        from_overcomplete(made / "jump.safetensors", k=K)


@pytest.mark.parametrize(
    ("key", "change", "error"),
    [
        ("encoder.final_block.0.weight", lambda x: x * float("nan"), "holds NaN or infinity"),
        ("dictionary.C", None, r"dictionary\.C is missing"),
        ("dictionary.multiplier", None, r"dictionary\.multiplier is missing"),
        ("dictionary.W", lambda x: x[:-1], "do not fit each other"),
    ],
)
def test_a_state_dict_that_is_not_whole_is_named(made, tmp_path, key, change, error):
    state = load_file(made / "ra.safetensors")
    key = key if key in state else next(name for name in state if name.startswith("encoder.") and "weight" in name)
    if change is None:
        del state[key]
    else:
        state[key] = change(state[key]).contiguous()
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(ConfigError, match=rf"broken\.safetensors: .*{error}"):
        from_overcomplete(tmp_path / "broken.safetensors", k=K)


def test_other_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"is no file: save the SAE with safetensors"):
        from_overcomplete(tmp_path / "none.safetensors", k=K)
    save_file({"dictionary.other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"neither dictionary._weights nor dictionary.Relax"):
        from_overcomplete(tmp_path / "other.safetensors", k=K)
    (tmp_path / "pickled.pt").write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(ConfigError, match=r"pickled files are never opened"):
        from_overcomplete(tmp_path / "pickled.pt", k=K)


def test_codes_by_batch_are_not_read_as_codes_by_token():
    """overcomplete's BatchTopKSAE counts the codes of a batch in `top_k`, and keeps its threshold out of its state."""

    class BatchTopKSAE(torch.nn.Module):
        top_k, running_threshold = 4, None

    with pytest.raises(ConfigError, match="BatchTopKSAE chooses codes by batch"):
        from_overcomplete(BatchTopKSAE())
