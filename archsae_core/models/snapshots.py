"""The model kept along training: when, in which file, and how it is read again."""

import math
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from archsae_core.data.activations import Normalizer
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE
from archsae_core.storage import write_atomically
from archsae_core.tensor_files import read_tensors


def snapshot_steps(steps: int) -> list[int]:
    """About log-spaced steps at which the model is kept: 0, 1, 3, 10, 30, … and the last."""
    spaced = [round(10 ** (half / 2)) for half in range(2 * math.ceil(math.log10(max(steps, 2))) + 1)]
    return sorted({0, steps, *(step for step in spaced if step < steps)})


def snapshot_file(step: int) -> str:
    """Name of the file that holds a run at `step`: atoms, W_enc, b_enc, b_dec, in bfloat16."""
    return f"snapshot_{step:06d}.safetensors"


def write_snapshot(sae: SAE, folder: Path, step: int) -> None:
    """Keep a model as it is at `step`."""
    tensors = {"atoms": sae.atoms(), "W_enc": sae.W_enc, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    tensors = {name: tensor.detach().bfloat16().cpu().contiguous() for name, tensor in tensors.items()}
    if sae.activation == "batchtopk":
        tensors["threshold"] = sae.threshold.cpu()
    write_atomically(folder / snapshot_file(step), lambda temporary: save_file(tensors, temporary))


def is_snapshot(path: Path) -> bool:
    """Whether `write_snapshot` may have written a file."""
    try:
        return {"atoms", "W_enc", "b_enc", "b_dec"} <= read_tensors(path).tensors.keys()
    except (SafetensorError, OSError):
        return False


def snapshots(folder: Path, steps: int) -> dict[int, Float[Tensor, "n_features d_model"]]:
    """Atoms of a run at each of `snapshot_steps(steps)`, step 0 and the last included."""
    files = {step: read_tensors(folder / snapshot_file(step)) for step in snapshot_steps(steps)}
    return {step: file.tensors["atoms"].float() for step, file in files.items()}


def snapshot_sae(folder: Path, step: int, k: int, normalizer: Normalizer) -> SAE:
    """The autoencoder of a run as it was at one of `snapshot_steps`, rounded to bfloat16 as it was kept.

    Its atoms stand in a frozen free dictionary with the norms that they had, whatever dictionary made them.
    """
    tensors = {name: tensor.float() for name, tensor in read_tensors(folder / snapshot_file(step)).tensors.items()}
    activation = "batchtopk" if "threshold" in tensors else "topk"
    dictionary = FreeDictionary(tensors.pop("atoms"), trainable=False, unit_norm=False)
    sae = SAE(dictionary, k, *normalizer, activation=activation)
    sae.load_state_dict(tensors, strict=False)
    return sae
