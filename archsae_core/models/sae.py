"""The TopK sparse autoencoder: raw activations in, raw activations out."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from archsae_core.checks import (
    SUM_TOLERANCE,
    require_codes,
    require_directions,
    require_finite,
    require_matrix,
    require_mixing,
    require_shape,
)
from archsae_core.config import (
    ACTIVATION_FUNCTIONS,
    FRAMES,
    ConfigError,
    require,
    require_choice,
    require_number,
    require_whole,
)
from archsae_core.data.activations import Normalizer
from archsae_core.data.hub import HubError, reachable
from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.batch_topk import above, batch_top_k
from archsae_core.kernels.topk import top_k
from archsae_core.metadata import contradiction, read_fields
from archsae_core.models.about import About
from archsae_core.models.dictionary import (
    ArchetypalDictionary,
    Dictionary,
    FreeDictionary,
    SparseArchetypalDictionary,
    unit,
)
from archsae_core.models.model_card import LIBRARY, TAGS, model_card
from archsae_core.storage import CorruptArtifact, jsonable, parse_json, read_json, write_atomically, write_json
from archsae_core.tensor_files import read_tensors

THRESHOLD_SHARE = 0.01
"""Of the way to a batch's smallest code, by which BatchTopK's threshold moves in a step, as in SAELens."""
PRETRAINED_WEIGHTS = "model.safetensors"
"""In a folder of `SAE.save_pretrained` or a repository on the hub, beside `config.json` and the model card."""
PRETRAINED_CONFIG = "config.json"
MODEL_CARD = "README.md"
SAELENS_CONFIG = "cfg.json"
"""What makes a folder one of SAELens."""


STRUCTURE = {
    "k": int, "activation": str, "frame": str, "decoder_bias": bool | None, "dictionary": str, "unit_norm": bool,
    "trainable": bool, "delta": float, "learn_scale": bool, "support": int,
}  # fmt: skip
"""What each entry of `structure` is."""


class Codes(NamedTuple):
    """Sparse codes of a batch: at most k active features a token, with BatchTopK as many as the token with the most."""

    values: Float[Tensor, "batch k"]
    """Non-negative; 0 where a token has fewer active features than there are columns."""
    indices: Int[Tensor, "batch k"]
    """Feature of each value."""

    @staticmethod
    def joined(parts: Sequence["Codes"]) -> "Codes":
        """The codes of several batches below each other, as wide as the widest: with BatchTopK widths differ."""
        width = max(part.values.shape[1] for part in parts)
        padded = ([F.pad(x, (0, width - x.shape[1])) for x in each] for each in zip(*parts, strict=True))
        return Codes(*map(torch.cat, padded))

    def dense(self, n_features: int) -> Float[Tensor, "batch n_features"]:
        """The same codes with their zeros; those of a feature that a token names twice are added, as in `decode`."""
        zeros = self.values.new_zeros(len(self.values), n_features)
        return zeros.scatter_add_(1, self.indices, self.values)


class SAE(nn.Module, ModelHubMixin, library_name=LIBRARY, tags=list(TAGS)):
    """z = TopK(ReLU(W_enc (x_n − b_dec) + b_enc)), x̂_n = z D + b_dec, with x_n = (x − shift)·scale.

    With the activation `batchtopk` (Bussmann et al. 2024, arXiv 2412.06410) training keeps the k·batch largest of a
    batch. A token's codes do not depend on others afterwards: those above `threshold` [] are active, the running mean
    of the smallest code above 0 of each training batch.

    `mean` [d_model], that of the training activations, and `scale` are fitted on these, so that E‖x_n‖² = d_model, and
    stored with the model: `SAE(dictionary, k, *fit_normalizer(x))`. By default they are 0 and 1, for activations that
    are normalised already. In the frame `centred`, `shift` is the mean; in `raw` it is 0. Without `decoder_bias`, b_dec
    is 0 and not trained; None gives the centred frame one and the raw frame none, where it would learn the mean that
    this frame is to keep. The dictionary is copied: training moves `sae.dictionary`, not the one that was given.

    `about` says where it comes from, and is stored with it too. `save_pretrained`, `from_pretrained` and `push_to_hub`
    are those of the Hugging Face hub's models; nothing is pickled.
    """

    mean: Float[Tensor, " d_model"]
    scale: Float[Tensor, ""]

    def __init__(
        self,
        dictionary: Dictionary,
        k: int,
        mean: Float[Tensor, " d_model"] | None = None,
        scale: float = 1.0,
        frame: str = "centred",
        *,
        decoder_bias: bool | None = None,
        activation: str = "topk",
    ) -> None:
        """Raises ConfigError that names the argument: for k beyond 1 … n_features, a mean of another size, a scale that
        is not positive, atoms that are NaN or infinite, or 0 where they are to have norm 1."""
        super().__init__()
        require_choice("frame", frame, FRAMES)
        require_choice("activation", activation, ACTIVATION_FUNCTIONS)
        require_number("scale", float(scale), 0.0, "must be positive and finite", open_low=True)
        kept = torch.tensor(float(scale), dtype=torch.float32)
        require(bool(kept.isfinite() & (kept > 0)), "scale", scale, "must be positive and finite in float32 as well")
        with torch.no_grad():
            atoms = dictionary.atoms()
        require_finite("dictionary", atoms)
        if dictionary.unit_norm:
            require_directions("dictionary", atoms)
        self.n_features, self.d_model = atoms.shape
        if mean is not None:
            require_shape("mean", mean, (self.d_model,))
            require_finite("mean", mean)
        self.dictionary = copy.deepcopy(dictionary)  # training moves it, and another SAE may be built of the same one
        self.frame, self.activation, self.k = frame, activation, k
        self.W_enc = nn.Parameter(unit(atoms))
        self.b_enc = nn.Parameter(atoms.new_zeros(self.n_features))
        self.decoder_bias = frame == "centred" if decoder_bias is None else decoder_bias
        self.b_dec = nn.Parameter(atoms.new_zeros(self.d_model), requires_grad=self.decoder_bias)
        mean = atoms.new_zeros(self.d_model) if mean is None else mean.detach().to(atoms, copy=True)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", kept.to(atoms.device))
        if activation == "batchtopk":
            self.register_buffer("threshold", atoms.new_zeros(()))
        self.about, self.built_of = About(), frozenset(self.state_dict())

    @property
    def k(self) -> int:
        """Codes a token; with `batchtopk`, in the mean, while it is trained: then the threshold decides."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        """Raises ConfigError for anything but a whole number from 1 to n_features."""
        require_whole("k", value, 1, self.n_features, "n_features = ")
        self._k = int(value)

    def atoms(self) -> Float[Tensor, "n_features d_model"]:
        """The dictionary D, in normalised units: a tensor of its own, which training on leaves as it is."""
        atoms = self.dictionary.atoms()
        return atoms.clone() if isinstance(atoms, nn.Parameter) else atoms

    @property
    def normalizer(self) -> Normalizer:
        """Mean, scale and frame, on the model's device."""
        return Normalizer(self.mean, self.scale, self.frame)

    @property
    def shift(self) -> Float[Tensor, " d_model"]:
        """What is subtracted from raw activations: the training mean in the centred frame, 0 in the raw one."""
        return self.normalizer.shift

    def normalize(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Raw to normalised activations, on the model's device, in float32.

        Raises ConfigError for what is no floating-point matrix of d_model columns: flatten [batch, seq, d_model] first.
        """
        self._require_float32()
        require_matrix("x", x, width=self.d_model, empty=True)
        return self.normalizer.normalize(x.to(self.mean.device).float())

    def _require_float32(self) -> None:
        if self.W_enc.dtype != torch.float32:
            held = str(self.W_enc.dtype).removeprefix("torch.")
            raise ConfigError(f"this SAE holds {held} and computes in float32: call .float(); any dtype goes in as x")

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "batch d_model"]) -> Codes:
        """Codes of raw activations: the k largest after ReLU, or those above the threshold. Without autograd.

        Raises ConfigError as `normalize` does, and for NaN and infinity.
        """
        require_matrix("x", x, width=self.d_model, empty=True)
        require_finite("x", x)
        centred = self.normalize(x) - self.b_dec
        if self.activation == "batchtopk":
            return Codes(*above(centred, self.W_enc, self.b_enc, self.threshold, self.k))
        values, indices = top_k(centred, self.W_enc, self.b_enc, self.k)
        return Codes(values.relu_(), indices)

    @torch.no_grad()
    def choose(
        self, centred: Float[Tensor, "batch d_model"]
    ) -> tuple[Float[Tensor, "batch width"], Int[Tensor, "batch width"]]:
        """Pre-activations that a training step keeps, of normalised data less b_dec, and their features."""
        choose = batch_top_k if self.activation == "batchtopk" else top_k
        return choose(centred, self.W_enc, self.b_enc, self.k)

    @torch.no_grad()
    def follow_threshold(self, values: Float[Tensor, "batch width"], share: float = THRESHOLD_SHARE) -> None:
        """Move the threshold by `share` of the way to the smallest of a batch's codes above 0, where there is one."""
        smallest = values.where(values > 0, torch.inf).min()
        self.threshold.lerp_(torch.where(smallest.isfinite(), smallest, self.threshold), share)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Float[Tensor, "batch d_model"]:
        """Raw activations of codes. Raises ConfigError for codes that are not finite or of features that are not."""
        require_codes("codes", codes, self.n_features)
        return self.reconstruct(codes, self.dictionary.atoms())

    @torch.no_grad()
    def reconstruct(self, codes: Codes, atoms: Float[Tensor, "n_features d_model"]) -> Float[Tensor, "batch d_model"]:
        """`decode` with atoms that the caller has computed once for many batches."""
        self._require_float32()
        return (kernels.weighted_rows(codes.values, codes.indices, atoms) + self.b_dec) / self.scale + self.shift

    def forward(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Raw reconstruction of raw activations."""
        return self.reconstruct(self.encode(x), self.dictionary.atoms())

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "batch d_model"]) -> None:
        """Scale W_enc by the one factor that minimises the squared error on `x`, where b_enc is 0 as at the start.

        An encoder with the atoms' own directions over-reconstructs by far where atoms overlap, as centroids do.
        """
        require_matrix("x", x, width=self.d_model)
        require_finite("x", x)
        x_n = self.normalize(x)
        values, indices = self.choose(x_n - self.b_dec)
        x_hat = kernels.weighted_rows(values.relu(), indices, self.dictionary.atoms())
        energy = x_hat.square().sum()
        if energy > 0:
            self.W_enc.mul_((x_hat * (x_n - self.b_dec)).sum().clamp_min(0) / energy)
        if self.activation == "batchtopk":
            self.follow_threshold(self.choose(x_n - self.b_dec)[0], share=1.0)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write `model.safetensors`, `config.json` and the model card to a folder, made where there is none.

        `options` are those of huggingface_hub's `ModelHubMixin`. An SAE that is there is replaced. Raises ConfigError,
        before anything is written, where weights or a config.json of something else are there, a folder of SAELens, or
        a model card that was edited since it was written.
        """
        _require_own(Path(save_directory))
        return super().save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        card = save_directory / MODEL_CARD
        if _is_own_card(card):
            card.unlink()  # it is of the SAE that was here before; the hub's mixin writes one where there is none
        save_sae(self, save_directory / PRETRAINED_WEIGHTS)
        write_json(save_directory / PRETRAINED_CONFIG, _pretrained_config(self))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "SAE":
        """The SAE in a folder of `save_pretrained`, or in a repository on the hub, from its cache where it is away.

        Raises ConfigError or HubError that names what is missing, CorruptArtifact for weights of something else.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir():
            options = reachable(name, PRETRAINED_WEIGHTS, options)
        elif not (Path(name) / PRETRAINED_WEIGHTS).is_file():
            raise ConfigError(f"{name} has no {PRETRAINED_WEIGHTS}: it is no folder of save_pretrained")
        return cls._from_pretrained(model_id=name, **options)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "SAE":
        if Path(model_id).is_dir():
            sae = load_sae(Path(model_id) / PRETRAINED_WEIGHTS)
            _require_same(sae, Path(model_id) / PRETRAINED_CONFIG)
            return sae
        names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        try:
            given = {name: options[name] for name in names if name in options}
            return load_sae(hf_hub_download(model_id, PRETRAINED_WEIGHTS, **given))
        except EntryNotFoundError as error:
            raise HubError(f"{model_id!r}: the repository has no {PRETRAINED_WEIGHTS}: it holds no SAE") from error

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write beside the weights."""
        return model_card(structure(self), (self.n_features, self.d_model), self.about)


def _pretrained_config(sae: SAE) -> dict[str, Any]:
    sizes = {"n_features": sae.n_features, "d_model": sae.d_model}
    return structure(sae) | sizes | {"about": sae.about.known()}


def _require_own(folder: Path) -> None:
    """Raise ConfigError where a file that `save_pretrained` would replace is not of an SAE."""
    fix = "save to another folder, or move it elsewhere"
    weights, config = folder / PRETRAINED_WEIGHTS, folder / PRETRAINED_CONFIG
    if weights.exists() and not is_saved_sae(weights):
        raise ConfigError(f"{weights} is of something else than an SAE and would be replaced: {fix}")
    if config.exists() and not _is_own_config(config):
        raise ConfigError(f"{config} is of something else than an SAE and would be replaced: {fix}")
    if (folder / SAELENS_CONFIG).exists():
        raise ConfigError(f"{folder} holds {SAELENS_CONFIG} of SAELens, which is read first: save to another folder")
    card = folder / MODEL_CARD
    if weights.exists() and _is_own_card(card) and not _is_card_of(weights, card):
        raise ConfigError(f"{card} was edited since it was written and would be replaced: {fix}")


def _is_own_card(path: Path) -> bool:
    return path.is_file() and f"library_name: {LIBRARY}" in _text_of(path)


def _is_card_of(weights: Path, card: Path) -> bool:
    """Whether a card is the one that is made of an SAE; of damaged weights, whatever it says."""
    try:
        return _text_of(card) == str(load_sae(weights).generate_model_card()).strip()
    except CorruptArtifact:
        return True


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def is_saved_sae(path: Path) -> bool:
    """Whether a file is one that `save_sae` wrote, by its metadata."""
    try:
        return "sae" in read_tensors(path).metadata
    except (SafetensorError, OSError):
        return False


def _is_own_config(path: Path) -> bool:
    try:
        config = read_json(path, fix="")
    except CorruptArtifact:
        return False
    return isinstance(config, Mapping) and {"k", "dictionary", "n_features", "d_model"} <= set(config)


def _require_same(sae: SAE, path: Path) -> None:
    """Raise ConfigError where a `config.json`, which people read, tells of another SAE than the weights beside it."""
    fix = "delete it, on which nothing depends, or save the SAE again"
    if not path.is_file():
        return
    try:
        config = read_json(path, fix=fix)
    except CorruptArtifact as error:
        raise ConfigError(str(error)) from error
    if not isinstance(config, Mapping):
        raise ConfigError(f"{path} is no JSON object: {fix}")
    if found := contradiction(_pretrained_config(sae), config):
        raise ConfigError(f"{path} does not belong to {PRETRAINED_WEIGHTS}, which says {found}: {fix}")


def structure(sae: SAE) -> dict[str, Any]:
    """What has to be known beside the tensors to build the SAE again; JSON-able.

    Which weights are trained is as their `requires_grad` says, and where none is, as in a model that was frozen for
    evaluation, as the SAE was built.
    """
    dictionary, frozen = sae.dictionary, not any(weights.requires_grad for weights in sae.parameters())
    if isinstance(dictionary, FreeDictionary):
        trainable = dictionary.trainable if frozen else dictionary.D.requires_grad
        kind = {"dictionary": "free", "trainable": trainable}
    else:
        learned = dictionary.learn_scale if frozen else dictionary.log_scale.requires_grad
        kind = {"dictionary": "archetypal", "delta": dictionary.delta, "learn_scale": learned}
        if isinstance(dictionary, SparseArchetypalDictionary):
            kind["support"] = dictionary.W_values.shape[1]
    frame = {"frame": sae.frame, "decoder_bias": sae.decoder_bias if frozen else sae.b_dec.requires_grad}
    return {"k": sae.k, "activation": sae.activation} | frame | kind | {"unit_norm": dictionary.unit_norm}


def sae_from(config: Any, tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE of this `structure` and `about`, as JSON has them, with these tensors, which its state dict names.

    Raises ConfigError that names the field or the tensor that no SAE has: a k beyond the features, a radius below 0,
    rows of W that mix no anchors, Λ beyond its radius, NaN or infinity.
    """
    about = About.read(config.get("about", {}) if isinstance(config, Mapping) else {})
    config = read_fields(config, STRUCTURE)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() and name != "dictionary.W_indices":
            raise ConfigError(f"{name} holds {tensor.dtype}: it must be of a floating-point dtype, such as float32")
        require_finite(name, tensor)
    dictionary, normalizer = _empty_dictionary(config, tensors), (tensors["mean"], float(tensors["scale"]))
    prefix = "dictionary."
    dictionary.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    )
    # files of earlier versions are of the centred frame, with TopK
    frame, decoder_bias = config.get("frame", "centred"), config.get("decoder_bias")
    options = {"decoder_bias": decoder_bias, "activation": config.get("activation", "topk")}
    sae = SAE(dictionary, config["k"], *normalizer, frame, **options)
    sae.load_state_dict(tensors)
    require_sound(sae)
    sae.about = about
    return sae


def _require_constraint(dictionary: Dictionary) -> None:
    """What training keeps true of tensors that are parameters, and a file may break."""
    if isinstance(dictionary, ArchetypalDictionary):
        longest = float(dictionary.relax.detach().norm(dim=1).max())
        if longest > dictionary.delta * (1 + 1e-5):
            raise ConfigError(f"dictionary.relax has a row of norm {longest:g}, beyond delta = {dictionary.delta:g}")
    elif dictionary.unit_norm:
        off = float((dictionary.D.detach().norm(dim=1) - 1).abs().max())
        if off > SUM_TOLERANCE:
            raise ConfigError(f"dictionary.D has a row whose norm is {off:g} off 1, and unit_norm is true")


def save_sae(sae: SAE, path: str | Path) -> None:
    """Write the SAE to one safetensors file, its structure and what is known of it in the metadata; atomically.

    Raises ConfigError, before anything is written, for what `load_sae` would refuse, and for a folder or a file of
    something else under that name.
    """
    sae = uncompiled(sae)
    require_sound(sae)
    if Path(path).exists() and not is_saved_sae(Path(path)):
        raise ConfigError(f"{path} is of something else than an SAE and would be replaced: name another file")
    tensors, metadata = {name: x.detach().contiguous().cpu() for name, x in sae.state_dict().items()}, described(sae)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def uncompiled(sae: nn.Module) -> SAE:
    """The SAE itself where `torch.compile` has wrapped it, whose tensors then have other names."""
    return getattr(sae, "_orig_mod", sae)


def require_sound(sae: SAE) -> None:
    """Raise ConfigError that names the field or the tensor of an SAE that was changed into none: NaN, another k, a
    tensor that no SAE has."""
    sae._require_float32()
    _require_own_tensors(sae)
    require_whole("k", sae.k, 1, sae.n_features, "n_features = ")
    for name, tensor in sae.state_dict().items():
        require_finite(name, tensor)
    if isinstance(sae.dictionary, ArchetypalDictionary):
        require_mixing("dictionary.W", sae.dictionary.weights)
    _require_constraint(sae.dictionary)
    if sae.activation == "batchtopk" and sae.threshold < 0:
        raise ConfigError(f"threshold = {float(sae.threshold):g}: must be at least 0, since codes are above it")


def _require_own_tensors(sae: SAE) -> None:
    if other := sorted(sae.built_of ^ sae.state_dict().keys()):
        what = "is missing" if other[0] in sae.built_of else "is no tensor of an SAE and could not be read again"
        fix = "take off what was registered on it, parametrizations too"
        raise ConfigError(f"sae: {other[0]} {what}: {fix}")


def described(sae: SAE) -> dict[str, str]:
    """Metadata of a safetensors file: `structure` and `about`, under one key, since several have no order.

    Raises ConfigError for NaN and infinity, which JSON does not know, and for a field of `about` of another kind.
    """
    about = jsonable(sae.about.known())
    try:
        told = json.dumps(structure(sae) | {"about": about}, allow_nan=False)
    except ValueError:
        raise ConfigError("about: holds NaN or infinity, which cannot be saved: leave that entry out") from None
    except TypeError as error:
        raise ConfigError(f"about: cannot be saved ({error}): give plain texts and numbers") from None
    About.read(about)
    return {"sae": told}


def load_sae(path: str | Path, *, fix: str = "give a file that save_sae wrote, or write it again") -> SAE:
    """Read what `save_sae` wrote. Raises CorruptArtifact for a truncated, altered or foreign file.

    The error names the file, the field or tensor, and ends in `fix`: what whoever keeps the file is to do.
    """
    try:
        tensors, metadata = read_tensors(path)
        return sae_from(parse_json(metadata["sae"]), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CorruptArtifact(f"{path} is not a saved SAE ({what}): {fix}") from error


def _empty_dictionary(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Dictionary:
    require_choice("dictionary", config["dictionary"], ("free", "archetypal"))
    if config["dictionary"] == "free":
        options = {"trainable": config["trainable"], "unit_norm": config.get("unit_norm", True)}
        return FreeDictionary(tensors["dictionary.D"], **options)
    options = {name: config[name] for name in ("delta", "unit_norm", "learn_scale")}
    if "support" in config:
        weights = tensors["dictionary.W_values"], tensors["dictionary.W_indices"]
        require_mixing("dictionary.W_values", weights[0])  # which are not made to sum to 1 here
        width = weights[0].shape[1]
        require(config["support"] == width, "support", config["support"], f"dictionary.W_values has {width} columns")
        return SparseArchetypalDictionary(tensors["dictionary.C"], weights, **options)
    require_mixing("dictionary.W", tensors["dictionary.W"])
    return ArchetypalDictionary(tensors["dictionary.C"], tensors["dictionary.W"], **options)


def reconstructions(sae: SAE, batches: Iterable[Tensor]) -> Iterable[tuple[Tensor, Codes, Tensor]]:
    """For each batch of raw activations: the batch, its codes, its raw reconstruction. The atoms are computed once."""
    with torch.no_grad():
        atoms = sae.atoms()
    for x in batches:
        codes = sae.encode(x)
        yield x, codes, sae.reconstruct(codes, atoms)
