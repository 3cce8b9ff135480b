"""`open_sae` opens what anyone saved, and says what is there where it is no SAE."""

import pytest
import torch
from safetensors.torch import save_file

from archsae_core.config import ConfigError
from archsae_core.data.hub import HubError
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


# --- names on the hub ---


def test_a_name_on_the_hub_is_opened_and_once_fetched_read_from_the_cache(sae, hub):
    sae.push_to_hub("user/sae", token="hf_stub")
    to_saelens(sae, hub.repository("user/saes") / "layer.1" / "seed_0")
    for _ in range(2):
        for name in ("user/sae", "user/saes/layer.1/seed_0"):
            assert torch.equal(open_sae(name).atoms(), sae.atoms())
        hub.close()


def test_a_folder_here_goes_before_a_name_on_the_hub(sae, hub, tmp_path, monkeypatch):
    other = SAE(FreeDictionary(torch.eye(4)), 1)
    other.save_pretrained(hub.repository("user/sae"))
    monkeypatch.chdir(tmp_path)
    assert open_sae("user/sae").n_features == 4
    sae.save_pretrained("user/sae")
    assert open_sae("user/sae").n_features == sae.n_features
    with pytest.raises(ConfigError, match="user/none does not exist: give"):
        open_sae("user/none")


@pytest.mark.parametrize("name", ["user/../secret", "/user/sae", "user/sae.safetensors", "~/sae", "sae"])
def test_what_cannot_be_a_name_is_not_asked_for(name, monkeypatch):
    monkeypatch.setattr("archsae_core.interop.opening.hub_commit", None)
    with pytest.raises(ConfigError, match="does not exist: give"):
        open_sae(name)


def test_what_the_hub_does_not_have_is_named(sae, hub):
    (hub.repository("user/model") / "config.json").write_text("{}")
    faults = {
        "user/none": "'user/none' is no file or folder here, and as a name on the hub: the hub has no such public",
        "user/gated": "'user/gated' is no file .* it is gated: accept its terms",
        "user/model": r"'user/model' has neither cfg\.json nor model\.safetensors on the hub: name the folder too",
        "user/model/layer.1": r"'user/model/layer.1' has neither cfg\.json",
    }
    for name, message in faults.items():
        with pytest.raises(HubError, match=message):
            open_sae(name)


def test_without_a_network_a_name_says_so(hub):
    hub.close()
    with pytest.raises(HubError, match=r"'user/sae' is no file or folder here, and the hub cannot be reached .* give"):
        open_sae("user/sae")


def test_without_a_network_a_cached_repository_that_lacks_the_folder_says_so(sae, hub):
    sae.push_to_hub("user/sae", token="hf_stub")
    open_sae("user/sae")
    hub.close()
    with pytest.raises(HubError, match=r"'user/sae/layer' has neither .* in the cache, and the hub cannot be reached"):
        open_sae("user/sae/layer")
