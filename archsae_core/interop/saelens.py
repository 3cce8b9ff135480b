"""SAELens' folder (https://github.com/jbloomAus/SAELens, version 6): `cfg.json` beside `sae_weights.safetensors`.

SAELens encodes z = act((x − b_dec) W_enc + b_enc) and decodes z W_dec + b_dec, on raw activations. With our
x_n = (x − shift)·s the same codes, divided by s, and the same reconstructions come from W_enc = W_eᵀ, b_enc = b_e / s,
W_dec = D and b_dec = shift + b_d / s, since

    (x − shift − b_d/s) W_eᵀ + b_e/s = (W_e (x_n − b_d) + b_e) / s,    z/s D + shift + b_d/s = (z D + b_d) / s + shift.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from archsae_core.config import ConfigError, shown
from archsae_core.metadata import contradiction, read_fields
from archsae_core.models.about import OWN_UNITS, About
from archsae_core.models.dictionary import FreeDictionary, unit
from archsae_core.models.sae import (
    PRETRAINED_WEIGHTS,
    SAE,
    described,
    is_saved_sae,
    require_sound,
    sae_from,
    structure,
    uncompiled,
)
from archsae_core.storage import CorruptArtifact, jsonable, parse_json, read_json, write_atomically, write_json
from archsae_core.tensor_files import read_tensors

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
OURS = "archsae.safetensors"
"""What SAELens has no place for: the frame, W, C, Λ. With it, `from_saelens` gives the very SAE that was written."""
SAELENS_VERSION = "6.54.12"
"""The release whose folder this is, as `cfg.json` has to say: without it, version 6 reads a folder as version 5's."""
TOLERANCE = 1e-4
"""Largest difference between `sae_weights.safetensors` and what `archsae.safetensors` makes of it, in its own units."""

KINDS = {"d_in": int, "d_sae": int, "k": int | None, "activation_fn_kwargs": dict | None, "metadata": dict | None}
"""What settings that are read here hold."""
METADATA_KINDS = {
    "hook_name": str | None, "hook_point": str | None, "model_name": str | None, "context_size": int | None,
    "prepend_bos": bool | None, "dataset_path": str | None, "seqpos_slice": list | None,
}  # fmt: skip
"""What metadata that are read here hold, before version 6 among the settings."""
BLOCK = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:h|layers|blocks)\.([0-9]{1,4})", re.ASCII)
"""Name of a block among the modules of a model of transformers: its output is read."""
OTHERS = ("dtype", "device", "sae_lens_version", "sae_lens_training_version")
"""Settings and metadata that SAELens changes and that say nothing of the SAE."""
GUESSED_K = 64
"""Codes a token that encoding begins with, where nobody says how many a JumpReLU SAE has: a wrong guess costs time."""
LONGEST = 2**24
"""Positions of the longest context that is believed."""


def to_saelens(sae: SAE, folder: str | Path) -> Path:
    """Write the SAE to `folder`, for `sae_lens.SAE.load_from_disk(folder)`; returns the folder.

    SAELens' codes are ours divided by `sae.scale`; its reconstructions are ours. What is known of the SAE (`sae.about`)
    becomes its metadata: hook, model, context, positions left out, arm, seed, δ, scores. An SAE with BatchTopK
    becomes a `jumprelu` one with a threshold for all features, as SAELens itself saves those. An SAE that is there is
    replaced. Raises ConfigError, before anything is written, where the files there are not of this function.
    """
    folder, sae = Path(folder), uncompiled(sae)
    require_sound(sae)
    _require_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scale = sae.scale.double()
    with torch.no_grad():
        weights = {
            "W_enc": sae.W_enc.T,
            "b_enc": sae.b_enc.double() / scale,
            "W_dec": sae.atoms(),
            "b_dec": sae.shift.double() + sae.b_dec.double() / scale,
        }
        if sae.activation == "batchtopk":
            weights["threshold"] = (sae.threshold.double() / scale).expand(sae.n_features)
    weights = {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights.items()}
    # The encoder and free atoms stand in SAELens' file already.
    ours = {name: tensor for name, tensor in sae.state_dict().items() if name not in ("W_enc", "dictionary.D")}
    ours = {name: tensor.detach().contiguous().cpu() for name, tensor in ours.items()}
    told = json.loads(described(sae)["sae"]) | {"hashes": _hashes(weights)}
    write_atomically(folder / WEIGHTS, lambda path: save_file(weights, path))
    write_atomically(folder / OURS, lambda path: save_file(ours, path, {"sae": json.dumps(told)}))
    write_json(folder / CONFIG, _config(sae))
    return folder


def _require_own(folder: Path) -> None:
    """Raise ConfigError where a file that would be replaced is of something else, or another folder's kind is there."""
    fix = "write to another folder, or move it elsewhere"
    own = is_saved_sae(folder / OURS) or _is_own(folder / CONFIG)
    taken = [path for path in (folder / CONFIG, folder / WEIGHTS, folder / OURS) if path.exists()]
    if taken and not own:
        raise ConfigError(f"{taken[0]} was written by something else and would be replaced: {fix}")
    if (folder / OURS).is_file() and (folder / WEIGHTS).is_file() and not _belongs(folder):
        raise ConfigError(f"{folder / WEIGHTS} was changed since it was written and would be replaced: {fix}")
    if (folder / PRETRAINED_WEIGHTS).exists():
        raise ConfigError(f"{folder} holds {PRETRAINED_WEIGHTS} of another kind of folder: {fix}")


def _is_own(config: Path) -> bool:
    """Whether `to_saelens` wrote these settings."""
    try:
        return "archsae" in read_json(config, fix="")["metadata"]
    except (CorruptArtifact, OSError, KeyError, TypeError):
        return False


def _belongs(folder: Path) -> bool:
    """Whether SAELens' weights are those that our file beside them was written with; of damaged ones, whatever they
    hold, and of folders of earlier versions, which have no hashes."""
    try:
        told = parse_json(read_tensors(folder / OURS).metadata["sae"]).get("hashes", {})
        found = _hashes(read_tensors(folder / WEIGHTS).tensors)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError):
        return True
    return all(found[name] == digest for name, digest in told.items() if name in found)


def _hashes(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Of what stands in SAELens' file alone or is compared with a tolerance: SHA-256 of each weight."""
    return {name: hashlib.sha256(weights[name].numpy().tobytes()).hexdigest() for name in ("W_enc", "W_dec")}


def _config(sae: SAE) -> dict[str, Any]:
    topk = {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
    return (topk if sae.activation == "topk" else {"architecture": "jumprelu"}) | {
        "d_in": sae.d_model,
        "d_sae": sae.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": _metadata(sae),
    }


def _metadata(sae: SAE) -> dict[str, Any]:
    """SAELens' own names where it has any, ours under `archsae` otherwise. Unknown fields are left out."""
    about, own = sae.about, structure(sae)
    found: dict[str, Any] = {
        "sae_lens_version": SAELENS_VERSION,
        "sae_lens_training_version": None,
        "model_name": about.model,
        "context_size": about.context,
        "prepend_bos": about.prepend_bos,
        "dataset_path": about.text,
        "hook_name": None if about.layer is None else f"blocks.{about.layer}.hook_resid_post",
        "seqpos_slice": _slice(about),
    }
    known = {name: value for name, value in found.items() if value is not None or name == "sae_lens_training_version"}
    return known | {"archsae": about.known() | own | {"scale": float(sae.scale)}}


def _slice(about: About) -> list[int | None] | None:
    """Positions as SAELens slices them, where those kept stand in one row: [1, None] without position 0."""
    excluded, end = set(about.excluded_positions), about.context or max(about.excluded_positions, default=0) + 2
    kept = [position for position in range(end) if position not in excluded]
    if not excluded or not kept or kept != [*range(kept[0], kept[-1] + 1)]:
        return None
    return [kept[0], None if kept[-1] == end - 1 else kept[-1] + 1]


def from_saelens(folder: str | Path) -> SAE:
    """The SAE in a folder of SAELens, with architecture `topk` or `jumprelu`.

    A folder that `to_saelens` wrote gives the SAE it was written from, archetypal dictionary and frame included. Any
    other gives a free dictionary with the decoder's own norms, in the raw frame (scale 1). A JumpReLU SAE becomes one
    with BatchTopK's single threshold: where its thresholds differ, each code counts in units of its own, and the atom
    is as much longer. Raises ConfigError that names the file or the setting and the fix.
    """
    folder = Path(folder)
    config, weights = _read(folder)
    about = _about(folder, config)
    if (folder / OURS).is_file():
        return _ours(folder, config, weights)
    jumprelu = config.get("architecture") == "jumprelu"
    trained_for = _trained_for(config) if jumprelu else _k(folder, config)
    k = min(config["d_sae"], GUESSED_K) if trained_for is None else trained_for
    W_enc, W_dec = weights["W_enc"].T.contiguous(), weights["W_dec"]
    b_enc, b_dec = weights["b_enc"], weights["b_dec"]
    if config.get("rescale_acts_by_decoder_norm", False):
        # SAELens ranks codes times norm, then divides them by it: that is unit atoms with a longer encoder.
        norms = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norms[:, None], b_enc * norms, unit(W_dec)
    if not config.get("apply_b_dec_to_input", True):
        b_enc = b_enc + W_enc @ b_dec
    state = {"b_dec": b_dec}
    if jumprelu:
        units, state["threshold"] = _units(folder, weights["threshold"])
        if not (units == 1).all():
            about = replace(about, note=OWN_UNITS)
        W_enc, b_enc, W_dec = W_enc / units[:, None], b_enc / units, W_dec * units[:, None]
    dictionary, options = FreeDictionary(W_dec, unit_norm=False), {"frame": "raw", "decoder_bias": True}
    sae = SAE(dictionary, k, **options, activation="batchtopk" if jumprelu else "topk")
    sae.load_state_dict(state | {"W_enc": W_enc, "b_enc": b_enc}, strict=False)
    sae.about = about if trained_for is not None else replace(about, k_recorded=False)
    return sae


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of a folder, in float32, with the sizes that the settings name."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}: a SAELens folder holds {CONFIG} and {WEIGHTS}")
    try:
        config = read_json(folder / CONFIG, fix="fetch the folder again, or write it again with SAELens")
    except CorruptArtifact as error:
        raise ConfigError(str(error)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{folder / CONFIG} is no JSON object: write the folder again with SAELens' save_model")
    read_fields(config, KINDS, f"{folder / CONFIG}: ")
    try:
        stored = read_tensors(folder / WEIGHTS).tensors
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{folder / WEIGHTS} cannot be read ({error}): copy or download it again") from error
    if wrong := [name for name, tensor in stored.items() if tensor.is_complex() or not tensor.float().isfinite().all()]:
        fix = "is not all finite real numbers: copy or download it again"
        raise ConfigError(f"{folder / WEIGHTS}: {wrong[0]} {fix}")
    if whole := [name for name, tensor in stored.items() if not tensor.is_floating_point()]:
        held = f"holds {stored[whole[0]].dtype}"
        raise ConfigError(f"{folder / WEIGHTS}: {whole[0]} {held}: save it as floating-point numbers, such as float32")
    weights = {name: tensor.float() for name, tensor in stored.items()}
    _check_architecture(folder, config)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        factor = weights.pop(name, torch.ones(1))
        if not torch.allclose(factor, torch.ones_like(factor)):
            fix = "multiply W_dec by it row by row, and save the SAE without it"
            raise ConfigError(f"{folder / WEIGHTS}: {name} of each code is not read here: {fix}")
    d_in, d_sae = config.get("d_in"), config.get("d_sae")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    shapes |= {"threshold": (d_sae,)} if config.get("architecture") == "jumprelu" else {}
    for name, shape in shapes.items():
        found = tuple(weights[name].shape) if name in weights else None
        if found != shape:
            what = "is missing" if found is None else f"has shape {list(found)}"
            fix = f"{CONFIG} asks for {list(shape)}; both files must come from one SAE"
            raise ConfigError(f"{folder / WEIGHTS}: {name} {what}, {fix}")
    if unknown := sorted(weights.keys() - shapes):
        known = f"what is read has {', '.join(shapes)} alone; SAELens itself opens others"
        raise ConfigError(f"{folder / WEIGHTS}: {unknown[0]} is not read here: {known}")
    return config, weights


def _check_architecture(folder: Path, config: Mapping[str, Any]) -> None:
    architecture = config.get("architecture", "standard")
    before_6 = architecture == "standard" and "topk" in (config.get("activation_fn_str"), config.get("activation_fn"))
    if architecture not in ("topk", "jumprelu") and not before_6:
        raise ConfigError(
            f"{folder / CONFIG}: architecture = {architecture!r} is not read here: only topk and jumprelu are, whose "
            "codes this package has too; SAELens itself opens the others"
        )
    for name in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        if not isinstance(config.get(name, False), bool):
            raise ConfigError(f"{folder / CONFIG}: {name} = {config[name]!r} must be true or false")
    if (shape := config.get("reshape_activations", "none")) not in ("none", None):
        fix = "SAELens itself opens it: here an activation is one vector of the residual stream"
        raise ConfigError(f"{folder / CONFIG}: reshape_activations = {shape!r} is not read here: {fix}")
    normalization = config.get("normalize_activations", "none")
    if normalization not in ("none", False, None):
        fix = "fold it into the weights with SAELens (fold_activation_norm_scaling_factor), and save the SAE again"
        raise ConfigError(f"{folder / CONFIG}: normalize_activations = {normalization!r} is not read here: {fix}")


def _k(folder: Path, config: Mapping[str, Any]) -> int:
    k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= config["d_sae"]:
        raise ConfigError(f"{folder / CONFIG}: k = {k!r} must be a whole number from 1 to d_sae = {config['d_sae']}")
    return k


def _trained_for(config: Mapping[str, Any]) -> int | None:
    """Codes a token that a JumpReLU SAE was trained for, where that is known."""
    details = (config.get("metadata") or {}).get("training_architecture_details") or {}
    found = read_fields(details, {"k": float | None}, f"{CONFIG}: metadata.training_architecture_details.")
    return min(config["d_sae"], max(1, round(found["k"]))) if found.get("k") else None


def _units(folder: Path, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """What each code is divided by so that one threshold serves all features, and that threshold."""
    if torch.equal(threshold, threshold[:1].expand_as(threshold)) and threshold[0] >= 0:
        return torch.ones_like(threshold), threshold[0]
    if not bool((threshold > 0).all()):
        low = float(threshold.min())
        raise ConfigError(
            f"{folder / WEIGHTS}: threshold of {low:g} in feature {int(threshold.argmin())}: only JumpReLU SAEs whose "
            "thresholds are all equal or all above 0 are read here"
        )
    return threshold, torch.ones((), dtype=torch.float32)


def _ours(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> SAE:
    """The SAE that `to_saelens` wrote. Raises ConfigError where the three files are not of the same one."""
    ignore = "delete it to read the weights as they are, without the constraint"
    try:
        tensors, metadata = read_tensors(folder / OURS)
        config = parse_json(metadata["sae"])
        tensors["W_enc"] = weights["W_enc"].T.contiguous()
        if "dictionary.C" not in tensors:
            tensors["dictionary.D"] = weights["W_dec"]
        sae = sae_from(config, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder / OURS} cannot be read ({error}): {ignore}") from error
    with torch.no_grad():
        pairs = {
            "W_dec": (sae.atoms(), weights["W_dec"]),
            "b_enc": (sae.b_enc, weights["b_enc"] * sae.scale),
            "b_dec": (sae.b_dec, (weights["b_dec"] - sae.shift) * sae.scale),
        }
    if "threshold" in weights:
        pairs["threshold"] = (sae.threshold.expand(sae.n_features), weights["threshold"] * sae.scale)
    for name, (mine, theirs) in pairs.items():
        if not torch.allclose(mine, theirs, atol=TOLERANCE * max(1.0, float(theirs.abs().max()))):
            raise ConfigError(f"{folder / OURS} does not belong to {WEIGHTS}: {name} differs; {ignore}")
    # folders of earlier versions have no hashes
    if found := contradiction(_hashes(weights), config.get("hashes", {})):
        raise ConfigError(f"{folder / OURS} does not belong to {WEIGHTS}: {found.split(' ')[0]} was changed; {ignore}")
    if found := contradiction(jsonable(_config(sae)), settings, OTHERS):
        raise ConfigError(f"{folder / OURS} does not belong to {CONFIG}: it says {found}; {ignore}")
    return sae


def _about(folder: Path, config: Mapping[str, Any]) -> About:
    """What SAELens' metadata say, before version 6 in the settings themselves."""
    where = f"{folder / CONFIG}: "
    found = read_fields({**config, **(config.get("metadata") or {})}, METADATA_KINDS, where)
    hook = found.get("hook_name") or found.get("hook_point") or ""
    parts = hook.split(".")
    # what goes into a block is what came out of the one before
    after = {"hook_resid_post": 0, "hook_resid_pre": -1}.get(parts[-1]) if parts[0] == "blocks" else None
    layer = int(parts[1]) + after if after is not None and len(parts) == 3 and parts[1].isdigit() else -1
    if (block := BLOCK.fullmatch(hook)) and not re.search("vision|visual|encoder", hook):
        layer = int(block[1])
    return About(
        model=found.get("model_name"),
        layer=layer if layer >= 0 else None,
        context=found.get("context_size"),
        prepend_bos=found.get("prepend_bos"),
        text=found.get("dataset_path"),
        excluded_positions=_excluded(where, found),
        source=f"SAELens, {hook}" if hook else "SAELens",
    )


def _excluded(where: str, found: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions that `seqpos_slice` leaves out, which is what Python's `slice` takes. Raises ConfigError."""
    given, context = found.get("seqpos_slice") or [None], found.get("context_size")
    said = f"{where}seqpos_slice = {shown(given)}"
    whole = [each for each in given if isinstance(each, int) and not isinstance(each, bool)]
    if len(given) > 3 or len(whole) + given.count(None) < len(given) or 0 in given[2:]:
        raise ConfigError(f"{said}: must be up to three whole numbers or null: start, end and step")
    if max([context or 0, *map(abs, whole)]) > LONGEST:
        raise ConfigError(f"{said}, context_size = {context}: no text has positions beyond {LONGEST}")
    if context is None and whole:
        if given[1:2] != [None] or given[2:] not in ([], [None], [1]) or given[0] < 0:
            raise ConfigError(
                f"{said}: which positions it leaves out depends on context_size, which is not given: add it"
            )
        return tuple(range(given[0]))
    kept = range(context or 0)[slice(*given)]
    return tuple(position for position in range(context or 0) if position not in kept)
