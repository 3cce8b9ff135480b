"""The autoencoder against its formula, and its file."""

import inspect

import pytest
import torch

from archsae_core.config import ConfigError
from archsae_core.models.dictionary import ArchetypalDictionary, FreeDictionary
from archsae_core.models.sae import SAE, Codes, load_sae, reconstructions, save_sae
from archsae_core.storage import CorruptArtifact


def make(kind="free"):
    generator = torch.Generator().manual_seed(0)
    if kind == "free":
        dictionary = FreeDictionary(torch.randn(20, 6, generator=generator))
    else:
        weights = torch.rand(20, 9, generator=generator)
        anchors = torch.randn(9, 6, generator=generator)
        dictionary = ArchetypalDictionary(anchors, weights / weights.sum(1, keepdim=True), delta=0.3, unit_norm=False)
    sae = SAE(dictionary, 4, torch.arange(6.0), 0.5)
    with torch.no_grad():
        sae.b_enc.normal_(generator=generator)
        sae.b_dec.normal_(generator=generator)
    return sae


@pytest.mark.parametrize("kind", ["free", "archetypal"])
def test_forward_is_the_formula_on_raw_activations(kind):
    sae, x = make(kind), 5 * torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    x_n = (x - torch.arange(6.0)) * 0.5
    pre = (x_n - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    z = torch.where(pre >= pre.sort(dim=1).values[:, -4:-3], pre.relu(), torch.zeros_like(pre))
    expected = (z @ sae.atoms() + sae.b_dec) / 0.5 + torch.arange(6.0)
    assert torch.allclose(sae(x), expected, atol=1e-5)
    assert torch.allclose(sae.encode(x).dense(20), z, atol=1e-5)
    _, codes, x_hat = next(iter(reconstructions(sae, [x])))
    assert torch.allclose(x_hat, expected, atol=1e-5)
    assert codes.values.shape == (30, 4)


def test_dense_codes_by_hand():
    codes = Codes(torch.tensor([[1.0, 2.0]]), torch.tensor([[3, 0]]))
    assert codes.dense(4).tolist() == [[2.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("kind", ["free", "archetypal"])
def test_file_round_trip_keeps_every_bit(tmp_path, kind):
    sae, x = make(kind), torch.randn(8, 6)
    save_sae(sae, tmp_path / "sae.safetensors")
    loaded = load_sae(tmp_path / "sae.safetensors")
    assert torch.equal(loaded(x), sae(x))
    for name, tensor in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in sae.parameters()]


@pytest.mark.parametrize("frame", ["centred", "raw"])
def test_an_sae_frozen_for_evaluation_is_saved_as_it_was_built(tmp_path, frame):
    """`requires_grad_(False)` says nothing of what is to be trained; one weight that is frozen alone does."""
    for dictionary in (FreeDictionary.random(20, 6), FreeDictionary(torch.randn(20, 6), trainable=False)):
        sae = SAE(dictionary, 4, frame=frame)
        trained = [weights.requires_grad for weights in sae.parameters()]
        save_sae(sae.requires_grad_(False), tmp_path / "sae.safetensors")
        loaded = load_sae(tmp_path / "sae.safetensors")
        assert [weights.requires_grad for weights in loaded.parameters()] == trained
    sae = SAE(FreeDictionary.random(20, 6), 4)
    sae.dictionary.D.requires_grad_(False)
    save_sae(sae, tmp_path / "sae.safetensors")
    assert not load_sae(tmp_path / "sae.safetensors").dictionary.D.requires_grad


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08" + b"\0" * 7 + b"{}      "])
def test_foreign_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "sae.safetensors").write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"sae\.safetensors is not a saved SAE"):
        load_sae(tmp_path / "sae.safetensors")


def test_calibration_minimises_the_error_over_one_factor():
    sae, x = make(), 5 * torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        sae.b_enc.zero_()
        sae.b_dec.zero_()

    def error(factor):
        scaled = make()
        scaled.load_state_dict(sae.state_dict())
        with torch.no_grad():
            scaled.W_enc.mul_(factor)
        return float((scaled(x) - x).square().sum())

    sae.calibrate(x)
    assert error(1.0) < min(error(0.97), error(1.03))


def test_raw_frame_subtracts_nothing_and_has_no_decoder_bias():
    """The training mean is carried in either frame, since cosines are centred by it."""
    dictionary, mean = make().dictionary, torch.arange(6.0)
    x = 5 * torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    centred, raw = SAE(dictionary, 4, mean, 0.5), SAE(dictionary, 4, mean, 0.5, "raw")
    assert torch.equal(raw.normalize(x), 0.5 * x)
    z = raw.encode(x).dense(20)
    assert torch.allclose(raw(x), z @ raw.atoms() / 0.5, atol=1e-5)
    assert torch.equal(raw.mean, centred.mean)
    assert [sae.b_dec.requires_grad for sae in (centred, raw)] == [True, False]
    assert SAE(dictionary, 4, mean, 0.5, "raw", decoder_bias=True).b_dec.requires_grad
    with pytest.raises(ConfigError, match="frame = 'none': must be one of centred, raw"):
        SAE(dictionary, 4, mean, 0.5, "none")


def test_without_mean_and_scale_activations_are_taken_as_normalised():
    sae, x = SAE(make().dictionary, 4), torch.randn(5, 6)
    assert torch.equal(sae.normalize(x), x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_a_compiled_sae_is_saved_as_itself(tmp_path):
    """`torch.compile` renames every tensor; nothing is compiled before it is called."""
    sae = make()
    inspect.unwrap(save_sae)(torch.compile(sae), tmp_path / "sae.safetensors")
    assert torch.equal(load_sae(tmp_path / "sae.safetensors").W_enc, sae.W_enc)


@pytest.mark.parametrize("registered", ["buffer", "parametrization"])
def test_a_tensor_that_no_sae_has_is_refused_before_anything_is_written(tmp_path, registered):
    sae = make()
    if registered == "buffer":
        sae.register_buffer("density", torch.zeros(20))
    else:
        torch.nn.utils.parametrize.register_parametrization(sae, "W_enc", torch.nn.Identity())
    with pytest.raises(ConfigError, match=r"sae: (density|W_enc|parametrizations).*take off"):
        save_sae(sae, tmp_path / "sae.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("k", [0, 21, True])
def test_k_stays_between_1_and_the_number_of_features(k):
    sae = make()
    with pytest.raises(ConfigError, match="k = "):
        sae.k = k
    assert sae.k == 4
    sae.k = 7
    assert sae.encode(torch.randn(3, 6)).values.shape == (3, 7)
