"""The settings of the core, one frozen dataclass a concern, each validated where it is made.

Field names are unique over all of them, so that a flat mapping (papermill, a command line) names each unambiguously.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real

LONGEST = 800
"""Characters of an error at most."""


def shortened(text: str, most: int = LONGEST) -> str:
    """The text without its middle where it is longer: an error begins with the field and ends with the fix."""
    start = most // 4
    return text if len(text) <= most else f"{text[:start]} … {text[start + 3 - most :]}"


def shown(value: object) -> str:
    """A value as an error repeats it, whatever was given."""
    try:
        return shortened(repr(value), 200)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, lists in lists
        return f"a {type(value).__name__} too large to be shown"


class ConfigError(ValueError):
    """A parameter that cannot be used; the message names the field and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


W_STEPS = ("published", "mirror", "sparse")
BOS = ("auto", "true", "false")
DTYPES = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
ACTIVATION_FUNCTIONS = ("topk", "batchtopk")
FRAMES = ("centred", "raw")
"""See `ActivationConfig.frame`."""
TEXT_LAYOUTS = ("auto", "lines", "blocks")


def require(condition: bool, name: str, value: object, fix: str) -> None:
    """Raise ConfigError for field `name` unless the condition holds."""
    if not condition:
        raise ConfigError(f"{name} = {shown(value)}: {fix}")


def require_given(name: str, value: str, fix: str = "give one or leave it out") -> None:
    """The value must hold something."""
    require(bool(value.strip()), name, value, f"an empty value, perhaps of a variable that is not set: {fix}")


def require_path(name: str, value: str) -> None:
    """The value must be one that a file system can look up, whether something is there or not."""
    try:
        value.encode()  # results, and safetensors, hold paths as UTF-8
        os.lstat(os.path.expanduser(value))
    except UnicodeEncodeError:
        raise ConfigError(
            f"{name} = {shown(value)}: is no UTF-8 text: rename what it leads to, or set LANG to a UTF-8 locale"
        ) from None
    except ValueError:
        raise ConfigError(f"{name} = {shown(value)}: no path holds such a character: leave it out") from None
    except OSError as error:
        fine = error.errno not in (errno.ENAMETOOLONG, errno.ELOOP)
        require(fine, name, value, f"cannot be looked up ({error.strerror}): give another path")


def require_whole(name: str, value: object, least: int = 1, most: int | None = None, why: str = "") -> None:
    """The value must be a whole number from `least` to `most`, which `why` explains; a bool is none."""
    require(isinstance(value, Integral) and not isinstance(value, bool), name, value, "must be a whole number")
    require(value >= least, name, value, f"must be at least {least}")
    require(most is None or value <= most, name, value, f"must not exceed {why}{most}")


def require_bool(name: str, value: object) -> None:
    """The value must be True or False: any text would count as True."""
    require(isinstance(value, bool), name, value, "must be True or False")


def require_number(name: str, value: object, low: float, fix: str, *, open_low: bool = False) -> None:
    """The value must be a finite number from `low`, without `low` itself where `open_low`; a bool is none."""
    require(isinstance(value, Real) and not isinstance(value, bool), name, value, f"{fix}, and a number")
    require((low < value if open_low else low <= value) and value < float("inf"), name, value, fix)


def _given(config: object, names: Iterable[str]) -> Iterable[tuple[str, object]]:
    """Names and values, without those that are None where None is the default."""
    for name in names:
        if getattr(config, name) is not None or getattr(type(config), name, 0) is not None:
            yield name, getattr(config, name)


def require_counts(config: object, names: Iterable[str]) -> None:
    """Every named field must be a whole number from 1, or None where that is the default."""
    for name, value in _given(config, names):
        require_whole(name, value)


def require_positive(config: object, names: Iterable[str]) -> None:
    """Every named field must be positive and finite, or None where that is the default."""
    for name, value in _given(config, names):
        require_number(name, value, 0.0, "must be positive and finite", open_low=True)


def require_not_negative(config: object, names: Iterable[str]) -> None:
    """Every named field must be 0 or larger, and finite."""
    for name in names:
        require_number(name, getattr(config, name), 0.0, "must be 0 or larger, and finite")


def require_share(name: str, value: object, low: float, high: float, *, closed: bool = False) -> None:
    """The value must be a number between `low` and `high`, or one of them where `closed`; a bool is none."""
    fix = f"must lie between {low:g} and {high:g}"
    require(isinstance(value, Real) and not isinstance(value, bool), name, value, f"{fix}, and be a number")
    require(low <= value <= high if closed else low < value < high, name, value, fix)


def require_choice(name: str, value: object, known: Iterable[str]) -> None:
    """The value must be one of the known ones."""
    known = tuple(known)
    require(value in known, name, value, f"must be one of {', '.join(known)}")


@dataclass(frozen=True)
class CorpusConfig:
    """Which documents are read, and how they are split."""

    text: str = "bbc-news"
    """Embedded texts (joined by +), `synthetic`, a hub dataset (`name` or `name:config`), or a file: .txt, .jsonl, .csv
    or .parquet."""
    text_revision: str | None = None
    """Hub revision of `text`; None takes the default branch."""
    text_field: str = "text"
    """Column that holds the text (jsonl, csv, parquet, hub)."""
    label_field: str | None = None
    """Column that holds a topic label, if any (jsonl, csv, parquet, hub)."""
    text_layout: str = "auto"
    """Documents of a .txt file: `lines`, `blocks` between blank lines; `auto`: blocks if there are two, else lines."""
    decode_entities: bool = True
    """Turn HTML entities (`&#233;`) into characters; false where they are the text, as in code."""
    near_copies: bool = True
    """Keep documents that share 16 consecutive words in one part of the split; false: only documents that are equal."""
    tokens: int | None = None
    """Budget of tokens taken from the text, whole documents in shuffled order; None takes all."""
    bos: str = "auto"
    """Token for the beginning of a sequence before every window: `true`, `false`, or `auto`, as the tokenizer does."""
    heldout_fraction: float = 0.1
    """Share of the documents kept for evaluation only."""
    validation_fraction: float = 0.05
    """Share of the documents kept for choosing hyperparameters only."""

    def __post_init__(self) -> None:
        require(bool(self.text.strip()), "text", self.text, "name an embedded text, a file or a dataset")
        require_path("text", self.text)
        same = "is the column of the text too: name another one, or None"
        require(self.label_field is None or self.label_field != self.text_field, "label_field", self.label_field, same)
        require_choice("text_layout", self.text_layout, TEXT_LAYOUTS)
        require_counts(self, ("tokens",))
        require_choice("bos", self.bos, BOS)
        for name in ("heldout_fraction", "validation_fraction"):
            require_share(name, getattr(self, name), 0.0, 0.5)


@dataclass(frozen=True)
class LanguageModelConfig:
    """Which language model is read, where and in which arithmetic."""

    model: str = "smollm2-135m"
    """Embedded model, `random-gpt2`, name on the Hugging Face hub, or a local folder in the hub's layout."""
    revision: str | None = None
    """Hub revision of `model`; None takes the default branch."""
    layer: int = 22
    """Residual stream after this block, counted from 0: `hidden_states[layer + 1]`."""
    context: int = 256
    """Tokens in one sequence fed to the language model."""
    dtype: str = "auto"
    """Arithmetic of the language model: bfloat16 where the device runs it fast, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""

    def __post_init__(self) -> None:
        require_path("model", self.model)
        require_whole("layer", self.layer, 0)
        require_whole("context", self.context)
        fix = "must be at least 3: position 0 is not read, and the last one has no next token to predict"
        require(self.context >= 3, "context", self.context, fix)
        require_choice("dtype", self.dtype, DTYPES)
        require_choice("device", self.device, DEVICES)


@dataclass(frozen=True)
class ActivationConfig:
    """Which activations are kept, and in which frame dictionaries see them."""

    frame: str = "centred"
    """`centred`: the training mean is removed. `raw`: it is not, and there is no decoder bias to learn it."""
    outlier_factor: float = 10.0
    """Positions with a norm above this many medians are dropped (position 0 always is)."""

    def __post_init__(self) -> None:
        require_choice("frame", self.frame, FRAMES)
        require_positive(self, ("outlier_factor",))
        fix = "must be at least 1: a smaller one drops more than half of the positions"
        require(self.outlier_factor >= 1, "outlier_factor", self.outlier_factor, fix)


@dataclass(frozen=True)
class AnchorConfig:
    """The k-means that gives the anchors C."""

    n_anchors: int = 1024
    """Centroids of k-means: rows of C."""
    anchor_tokens: int | None = None
    """At most this many training activations are clustered; None takes all."""
    kmeans_iterations: int = 20
    """Lloyd iterations at most."""
    anchor_folds: int = 8
    """Disjoint parts of the training documents: each seed with anchors of its own takes one. Every fit, that of all
    documents too, is on as many tokens as the smallest part has: more seeds change no anchors."""

    def __post_init__(self) -> None:
        require_counts(self, ("n_anchors", "anchor_tokens", "kmeans_iterations", "anchor_folds"))
        fix = "must be at least 2: the hull of one anchor is a point, and anchors are compared less their mean"
        require(self.n_anchors >= 2, "n_anchors", self.n_anchors, fix)


@dataclass(frozen=True)
class DictionaryConfig:
    """The sparse autoencoder: sizes, and the constraint on an archetypal dictionary."""

    n_features: int = 1024
    """Atoms of the dictionary: rows of D."""
    k: int = 32
    """Active codes per token."""
    activation: str = "topk"
    """Which codes are active: `topk`, k a token, or `batchtopk`, k·batch of a batch (Bussmann et al. 2024)."""
    delta: float = 1.0
    """Radius of the relaxation Λ, in the frame's units, where E‖x‖² = d_model."""
    unit_norm: bool = True
    """Atoms of the archetypal dictionary are scaled to norm 1 after the hull constraint."""
    learn_scale: bool = False
    """Learn the common scale exp(m) (without effect where `unit_norm`)."""
    smoothing: float = 0.9
    """Share of each starting row of W that `mirror` spreads evenly over all anchors."""

    def __post_init__(self) -> None:
        require_counts(self, ("n_features", "k"))
        require_choice("activation", self.activation, ACTIVATION_FUNCTIONS)
        require_not_negative(self, ("delta",))
        fix = "must be at least 2: atoms are compared less their mean"
        require(self.n_features >= 2, "n_features", self.n_features, fix)
        require(self.k <= self.n_features, "k", self.k, f"must not exceed n_features = {self.n_features}")
        require_share("smoothing", self.smoothing, 0.0, 1.0)


@dataclass(frozen=True)
class TrainingConfig:
    """The optimiser and its schedule."""

    w_step: str = "mirror"
    """How W moves: `published` (Adam, ReLU, row-normalise), `mirror` (entropic), `sparse` (`support` entries a row)."""
    support: int = 64
    """Anchors that an atom mixes at most, where `w_step` is `sparse`."""
    w_dtype: str = "auto"
    """Arithmetic of W's gradient: bfloat16 where the processor runs it fast, else float32. Constraints are exact."""
    lr: float = 3e-4
    """Adam's learning rate."""
    w_lr: float | None = None
    """Learning rate of W; None takes 0.003 (log-weight per step), and for `published` that is `lr`."""
    steps: int = 600
    """Optimiser steps of each training run."""
    decay: float = 0.2
    """Share of the steps, the last ones, over which all learning rates fall linearly to 0."""
    batch_size: int = 1024
    """Tokens in a step."""
    aux_k: int = 128
    """Dead features that AuxK lets reconstruct the residual (Gao et al. 2024)."""
    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss."""
    dead_after: int = 50
    """Steps without firing after which AuxK counts a feature as dead."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        require_counts(self, ("support", "steps", "batch_size", "aux_k", "dead_after", "checkpoint_every"))
        fix = "must be at least 2: the loss is a share of the variance of a batch"
        require(self.batch_size >= 2, "batch_size", self.batch_size, fix)
        require_positive(self, ("lr", "w_lr"))
        require_not_negative(self, ("aux_coefficient",))
        require_share("decay", self.decay, 0.0, 1.0, closed=True)
        require_choice("w_step", self.w_step, W_STEPS)
        require_choice("w_dtype", self.w_dtype, DTYPES)

    @property
    def w_rate(self) -> float:
        """Learning rate of W in force."""
        usual = self.lr if self.w_step == "published" else 3e-3
        return usual if self.w_lr is None else self.w_lr
