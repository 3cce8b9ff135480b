"""`open_sae` opens what anyone saved, and says what is there where it is no SAE."""

import pytest
import torch
from safetensors.torch import save_file

from archsae_core.config import ConfigError
from archsae_core.interop import open_sae, to_saelens
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE, save_sae
from archsae_core.storage import CorruptArtifact


@pytest.fixture
def sae(seeded):
    sae = SAE(FreeDictionary(torch.randn(10, 6)), 3, torch.randn(6), 0.5)
    sae.b_dec.data.normal_()
    return sae


def saved(sae, tmp_path):
    """The same SAE in every form in which it can be saved here."""
    save_sae(sae, tmp_path / "sae.safetensors")
    sae.save_pretrained(tmp_path / "pretrained")
    to_saelens(sae, tmp_path / "saelens")
    state = {"dictionary._weights": sae.atoms(), "dictionary.multiplier": torch.zeros(())}
    state |= {"encoder.final_block.0.weight": sae.W_enc, "encoder.final_block.0.bias": sae.b_enc}
    save_file({name: tensor.detach() for name, tensor in state.items()}, tmp_path / "overcomplete.safetensors")
    return [tmp_path / name for name in ("sae.safetensors", "pretrained", "saelens", "overcomplete.safetensors")]


def test_every_form_is_opened(sae, tmp_path):
    for path in saved(sae, tmp_path):
        found = open_sae(path, k=3)
        assert torch.allclose(found.atoms(), sae.atoms(), atol=1e-6), path.name
        assert torch.equal(found.W_enc, sae.W_enc), path.name


def spoil(path, content=b"no safetensors"):
    path.write_bytes(content)
    return path


def test_what_is_no_sae_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    save_file({"anchors": torch.zeros(2, 2), "occupancy": torch.zeros(2)}, tmp_path / "anchors.safetensors")
    save_file({}, tmp_path / "nothing.safetensors")
    faults = {
        tmp_path / "none": "does not exist: give a .safetensors file of this package",
        tmp_path / "empty": "has neither cfg.json nor model.safetensors: give",
        spoil(tmp_path / "pickle.pt"): "is no safetensors file",
        tmp_path / "anchors.safetensors": "is no SAE: it holds anchors, occupancy; give",
        tmp_path / "nothing.safetensors": "is no SAE: it holds nothing; give",
    }
    for path, message in faults.items():
        with pytest.raises(ConfigError, match=message):
            open_sae(path)


def test_a_damaged_file_of_ours_is_named(sae, tmp_path):
    path = tmp_path / "sae.safetensors"
    tensors = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    del tensors["b_enc"]
    save_file(tensors, path, {"sae": '{"k": 3, "dictionary": "free", "trainable": true}'})
    with pytest.raises(CorruptArtifact, match="is not a saved SAE"):
        open_sae(path)
