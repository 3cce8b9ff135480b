"""SAEs of overcomplete (https://github.com/KempnerInstitute/overcomplete, 0.3), the library of the method's authors.

Its TopK SAE encodes z = TopK(ReLU(W x + b)) and decodes z D: ours in the raw frame, with scale 1 and no decoder bias.
Its RA-SAE swaps D for (W C + Λ)·exp(m). It has no file format of its own: save its state dict as safetensors.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from archsae_core.config import ConfigError
from archsae_core.models.about import About
from archsae_core.models.dictionary import ArchetypalDictionary, Dictionary, FreeDictionary
from archsae_core.models.sae import SAE
from archsae_core.tensor_files import read_tensors

ENCODERS = ("encoder.final_block.0.weight", "encoder.weight")
"""Of its default linear encoder, and of the one that `untied()` makes."""


def from_overcomplete(source: nn.Module | str | Path, *, k: int | None = None, delta: float | None = None) -> SAE:
    """The SAE that an overcomplete `TopKSAE` or `RATopKSAE` is, or that its state dict in a safetensors file makes.

    A module says its `top_k` and radius itself. A state dict does not: `k` is needed, and `delta` defaults to the
    longest row of Λ; that of a `BatchTopKSAE`, which is not read here, looks the same. Rows of W and Λ are projected as
    overcomplete does before it uses them. Raises ConfigError for another kind of encoder or dictionary, and names what
    is missing.
    """
    if isinstance(source, nn.Module):
        name, state = type(source).__name__, source.state_dict()
        if not isinstance(getattr(source, "top_k", None), int):
            raise ConfigError(f"{name} has no top_k: only overcomplete's TopKSAE and RATopKSAE are read here")
        if hasattr(source, "running_threshold"):  # of its BatchTopKSAE, and in no state dict
            fix = "whose top_k counts the codes of a batch: only its TopKSAE and RATopKSAE are read here"
            raise ConfigError(f"{name} chooses codes by batch, {fix}")
        k = source.top_k if k is None else k
        delta = getattr(getattr(source, "dictionary", None), "delta", None) if delta is None else delta
        atoms = None if "dictionary.C" in state else source.get_dictionary().detach()
    else:
        name, state, atoms = str(source), _read(source), None
    if k is None:
        raise ConfigError(f"{name}: its state dict does not hold how many codes a token has: pass k=…")
    if other := sorted(key for key in state if not key.startswith(("dictionary.", "encoder."))):
        raise ConfigError(
            f"{name}: {other[0]!r} belongs to an SAE of another activation than TopK, which is not read here"
        )
    if whole := sorted(key for key, tensor in state.items() if not tensor.is_floating_point()):
        held = f"{whole[0]} holds {state[whole[0]].dtype}"
        raise ConfigError(f"{name}: {held}: save it as floating-point numbers, such as float32")
    state = {key: tensor.detach().float().cpu() for key, tensor in state.items()}
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            raise ConfigError(f"{name}: {key} holds NaN or infinity: save the SAE again")
    try:
        dictionary = _dictionary(name, state, atoms, delta)
        with torch.no_grad():
            sae = SAE(dictionary, k, torch.zeros(dictionary.atoms().shape[1], dtype=torch.float32), 1.0, "raw")
            W_enc, b_enc = _encoder(name, state, dictionary)
            sae.load_state_dict({"W_enc": W_enc, "b_enc": b_enc}, strict=False)
    except KeyError as error:
        raise ConfigError(f"{name}: {error.args[0]} is missing: save the whole state dict") from None
    except RuntimeError as error:
        raise ConfigError(f"{name}: its tensors do not fit each other ({error}): save the SAE again") from None
    sae.about = About(source="overcomplete")
    return sae


def is_overcomplete(names: Mapping[str, object] | set[str]) -> bool:
    """Whether tensors of these names are an overcomplete SAE's."""
    return "dictionary.Relax" in names or "dictionary._weights" in names


def _read(path: str | Path) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ConfigError(f"{path} is no file: save the SAE with safetensors.torch.save_file(sae.state_dict(), path)")
    try:
        return read_tensors(path).tensors
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read as safetensors ({error}): save the SAE with "
            "safetensors.torch.save_file(sae.state_dict(), path); pickled files are never opened"
        ) from error


def _dictionary(name: str, state: Mapping[str, Tensor], atoms: Tensor | None, delta: float | None) -> Dictionary:
    if "dictionary.Relax" in state:
        C, W, relax = (state[f"dictionary.{part}"] for part in ("C", "W", "Relax"))
        radius = float(relax.norm(dim=1).max()) if delta is None else float(delta)
        # as overcomplete does before it uses them: a row of W without a positive entry stays a row of zeros
        W = W.relu() / (W.relu().sum(dim=1, keepdim=True) + 1e-8)
        dictionary = ArchetypalDictionary(C, W, delta=radius, unit_norm=False, learn_scale=True)
        with torch.no_grad():
            dictionary.relax.copy_(relax)
            dictionary.log_scale.copy_(state["dictionary.multiplier"])
        dictionary.project_relax_()
        return dictionary
    if "dictionary._weights" not in state:
        raise ConfigError(f"{name} is no overcomplete SAE: it has neither dictionary._weights nor dictionary.Relax")
    if atoms is None:
        rows = state["dictionary._weights"]
        if not torch.allclose(rows.norm(dim=1), torch.ones(len(rows), dtype=rows.dtype), atol=1e-3):
            fix = "call sae.eval() before its state dict is saved, or pass the SAE itself"
            raise ConfigError(
                f"{name}: dictionary._weights are not normalised, and a state dict does not say how: {fix}"
            )
        atoms = rows * state["dictionary.multiplier"].exp()
    return FreeDictionary(atoms.float().cpu(), unit_norm=False)


def _encoder(name: str, state: Mapping[str, Tensor], dictionary: Dictionary) -> tuple[Tensor, Tensor]:
    found = {key for key in state if key.startswith("encoder.")}
    tied = {key for key in found if key.startswith("encoder.tied_to.")}
    weights = found & set(ENCODERS)
    key = next(iter(weights), "encoder.weight")
    other = sorted(found - tied - {key, key.replace("weight", "bias")})
    if other or len(weights) + bool(tied) != 1:
        what = f"encoder part {other[0]!r}" if other else "its encoder"
        raise ConfigError(f"{name}: {what} is not linear, so this package's encoder cannot stand for it")
    weight = dictionary.atoms() if tied else state[key]
    return weight, state.get(key.replace("weight", "bias"), torch.zeros(len(weight), dtype=weight.dtype))
