"""The TopK sparse autoencoder: raw activations in, raw activations out."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.topk import top_k
from archsae_core.models.dictionary import ArchetypalDictionary, Dictionary, FreeDictionary
from archsae_core.storage import CorruptArtifact, write_atomically


class Codes(NamedTuple):
    """Sparse codes of a batch: at most k active features a token."""

    values: Float[Tensor, "batch k"]
    """Non-negative; 0 where fewer than k pre-activations are positive."""
    indices: Int[Tensor, "batch k"]
    """Feature of each value."""

    def dense(self, n_features: int) -> Float[Tensor, "batch n_features"]:
        """The same codes with their zeros."""
        zeros = self.values.new_zeros(len(self.values), n_features)
        return zeros.scatter_(1, self.indices, self.values)


class SAE(nn.Module):
    """z = TopK(ReLU(W_enc (x_n − b_dec) + b_enc)), x̂_n = z D + b_dec, with x_n = (x − mean)·scale.

    `mean` [d_model] and `scale` are fitted on training activations (E‖x_n‖² = d_model) and stored with the model.
    """

    mean: Float[Tensor, " d_model"]
    scale: Float[Tensor, ""]

    def __init__(self, dictionary: Dictionary, k: int, mean: Float[Tensor, " d_model"], scale: float) -> None:
        super().__init__()
        self.dictionary, self.k = dictionary, k
        with torch.no_grad():
            atoms = dictionary.atoms()
        self.n_features, self.d_model = atoms.shape
        self.W_enc = nn.Parameter(nn.functional.normalize(atoms, dim=1))
        self.b_enc = nn.Parameter(atoms.new_zeros(self.n_features))
        self.b_dec = nn.Parameter(atoms.new_zeros(self.d_model))
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("scale", torch.tensor(float(scale)))

    def atoms(self) -> Float[Tensor, "n_features d_model"]:
        """The dictionary D, in normalised units."""
        return self.dictionary.atoms()

    def normalize(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Raw to normalised activations, on the model's device."""
        return (x.to(self.mean.device).float() - self.mean).mul_(self.scale)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "batch d_model"]) -> Codes:
        """Codes of raw activations: ReLU, then the k largest. Without autograd; training has its own path."""
        values, indices = top_k(self.normalize(x) - self.b_dec, self.W_enc, self.b_enc, self.k)
        return Codes(values.relu_(), indices)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Float[Tensor, "batch d_model"]:
        """Raw activations of codes."""
        return self.reconstruct(codes, self.atoms())

    @torch.no_grad()
    def reconstruct(self, codes: Codes, atoms: Float[Tensor, "n_features d_model"]) -> Float[Tensor, "batch d_model"]:
        """`decode` with atoms that the caller has computed once for many batches."""
        return (kernels.weighted_rows(codes.values, codes.indices, atoms) + self.b_dec) / self.scale + self.mean

    def forward(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Raw reconstruction of raw activations."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "batch d_model"]) -> None:
        """Scale the encoder by the one factor that minimises the squared error on `x` at the start.

        An encoder with the atoms' own directions over-reconstructs by far where atoms overlap, as centroids do.
        """
        x_n = self.normalize(x)
        codes = self.encode(x)
        x_hat = kernels.weighted_rows(codes.values, codes.indices, self.atoms())
        energy = x_hat.square().sum()
        if energy > 0:
            self.W_enc.mul_((x_hat * x_n).sum().clamp_min(0) / energy)


def save_sae(sae: SAE, path: str | Path) -> None:
    """Write the SAE to one safetensors file, its structure in the metadata; atomically."""
    dictionary = sae.dictionary
    config: dict[str, object] = {"k": sae.k, "dictionary": "free", "trainable": True}
    if isinstance(dictionary, ArchetypalDictionary):
        names = ("delta", "unit_norm")
        config = {"k": sae.k, "dictionary": "archetypal"} | {name: getattr(dictionary, name) for name in names}
        config["learn_scale"] = dictionary.log_scale.requires_grad
    else:
        config["trainable"] = dictionary.D.requires_grad
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in sae.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {"sae": json.dumps(config)}))


def load_sae(path: str | Path) -> SAE:
    """Read what `save_sae` wrote. Raises CorruptArtifact for a truncated, altered or foreign file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            config = json.loads(file.metadata()["sae"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        sae = SAE(_empty_dictionary(config, tensors), config["k"], tensors["mean"], float(tensors["scale"]))
        sae.load_state_dict(tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptArtifact(f"{path} is not a saved SAE ({error}): delete its folder to train it again") from error
    return sae


def _empty_dictionary(config: dict, tensors: dict[str, Tensor]) -> Dictionary:
    if config["dictionary"] == "free":
        return FreeDictionary(tensors["dictionary.D"], trainable=config["trainable"])
    options = {name: config[name] for name in ("delta", "unit_norm", "learn_scale")}
    return ArchetypalDictionary(tensors["dictionary.C"], tensors["dictionary.W"], **options)


def reconstructions(sae: SAE, batches: Iterable[Tensor]) -> Iterable[tuple[Tensor, Codes, Tensor]]:
    """For each batch of raw activations: the batch, its codes, its raw reconstruction. The atoms are computed once."""
    with torch.no_grad():
        atoms = sae.atoms()
    for x in batches:
        codes = sae.encode(x)
        yield x, codes, sae.reconstruct(codes, atoms)
