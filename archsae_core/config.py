"""The parameters of a study: presets, coercion of what papermill and a shell pass in, validation."""

import ast
import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsae_core.arms import ARMS


class ConfigError(ValueError):
    """A parameter that cannot be used; the message names the field and the fix."""


W_STEPS = ("published", "mirror")
DTYPES = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
COUNTS = (
    "n_anchors", "kmeans_iterations", "n_features", "k", "steps", "batch_size", "aux_k", "dead_after",
    "checkpoint_every", "n_seeds", "ablation_steps", "ablation_seeds", "behaviour_tokens", "tokens", "anchor_tokens",
    "heldout_tokens", "longer_factor",
)  # fmt: skip
"""Fields that count something: at least 1."""
SCHEDULER = re.compile(r"local:[1-9]\d{0,3}|(tcp|tls|ws|wss)://[^\s/:]+:\d{1,5}")
"""`scheduler` where it is no file."""


@dataclass(frozen=True)
class Config:
    """Everything that determines a study's results. `preset` only names where the defaults came from."""

    preset: str = "quick"
    """One of `PRESETS`."""
    model: str = "smollm2-135m"
    """Embedded model, `random-gpt2`, name on the Hugging Face hub, or a local folder in the hub's layout."""
    revision: str | None = None
    """Hub revision of `model` and of a hub `text`; None takes the default branch."""
    layer: int = 22
    """Residual stream after this block, counted from 0: `hidden_states[layer + 1]`."""
    text: str = "bbc-news"
    """Embedded text, `synthetic`, hub dataset (`name` or `name:config`), or a .txt / .jsonl / .parquet file."""
    text_field: str = "text"
    """Column that holds the text (jsonl, parquet, hub)."""
    label_field: str | None = None
    """Column that holds a topic label, if any (jsonl, parquet, hub)."""
    context: int = 256
    """Tokens in one sequence fed to the language model."""
    tokens: int | None = None
    """Budget of tokens taken from the text, whole documents in shuffled order; None takes all."""
    heldout_fraction: float = 0.1
    """Share of the documents kept for evaluation only."""
    validation_fraction: float = 0.05
    """Share of the documents kept for choosing hyperparameters only."""
    dtype: str = "auto"
    """Arithmetic of the language model: bfloat16 where the device runs it fast, else float32."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    outlier_factor: float = 10.0
    """Positions with a norm above this many medians are dropped (position 0 always is)."""
    n_anchors: int = 1024
    """Centroids of k-means: rows of C."""
    anchor_tokens: int | None = None
    """At most this many training activations are clustered; None takes all."""
    kmeans_iterations: int = 20
    """Lloyd iterations at most."""
    n_features: int = 1024
    """Atoms of the dictionary: rows of D."""
    k: int = 32
    """Active codes per token."""
    delta: float = 1.0
    """Radius of the relaxation Λ, in units where E‖x‖² = d_model."""
    unit_norm: bool = True
    """Atoms of the archetypal dictionary are scaled to norm 1 after the hull constraint."""
    learn_scale: bool = False
    """Learn the common scale exp(m) (without effect where `unit_norm`)."""
    w_step: str = "mirror"
    """How W moves: `published` (Adam, then ReLU and row-normalise) or `mirror` (entropic mirror descent)."""
    w_dtype: str = "auto"
    """Arithmetic of W's gradient: bfloat16 where the processor runs it fast, else float32. Constraints are exact."""
    smoothing: float = 0.9
    """Share of each starting row of W that `mirror` spreads evenly over all anchors."""
    lr: float = 3e-4
    """Adam's learning rate."""
    w_lr: float | None = None
    """Learning rate of W; None takes 0.003 (log-weight per step) for `mirror` and `lr` for `published`."""
    steps: int = 600
    """Optimiser steps of each training run."""
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
    seed: int = 0
    """Seed of the dictionaries of notebooks 02 to 04 and 07."""
    n_seeds: int = 3
    """Seeds per arm in 05."""
    arms: tuple[str, ...] = ("topk", "topk-kmeans", "topk-kmeans-indep", "ra", "ra-random-w", "ra-indep-anchors")
    """Arms compared in 05."""
    longer_factor: int = 1
    """Steps of the longest runs, in multiples of `steps`: two arms that share nothing, in 05. 1 leaves them out."""
    deltas: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
    """Radii swept in 06."""
    ablation_steps: int = 300
    """Optimiser steps of each run in 06."""
    ablation_seeds: int = 2
    """Seeds per delta in 06."""
    heldout_tokens: int | None = None
    """At most this many held-out tokens are scored; None takes all."""
    behaviour_tokens: int = 8192
    """Held-out tokens for CE and KL with the reconstruction spliced in."""
    feature: int | None = None
    """Feature inspected in 07; None takes the strongest feature found by the scan."""
    scheduler: str | None = None
    """Where to train: `local:N` processes, `tcp://host:port` or a scheduler file of Dask; None: in this process."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_choices()
        _require(self.context >= 2, "context", self.context, "must be at least 2, since position 0 is dropped")
        _require(self.k <= self.n_features, "k", self.k, f"must not exceed n_features = {self.n_features}")
        last = self.n_features - 1
        _require(self.feature is None or 0 <= self.feature <= last, "feature", self.feature, f"must lie in 0 … {last}")

    def _check_ranges(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "must be at least 1")
        for name in ("lr", "w_lr", "outlier_factor"):
            value = getattr(self, name)
            _require(value is None or 0 < value < float("inf"), name, value, "must be positive and finite")
        for name in ("delta", "aux_coefficient", "layer", "seed"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), name, value, "must be 0 or larger, and finite")
        _require(self.seed < 2**40, "seed", self.seed, "must be below 2**40")
        _require(0 < self.smoothing < 1, "smoothing", self.smoothing, "must lie between 0 and 1")
        for name in ("heldout_fraction", "validation_fraction"):
            _require(0 < getattr(self, name) < 0.5, name, getattr(self, name), "must lie between 0 and 0.5")

    def _check_choices(self) -> None:
        choices = {"preset": tuple(PRESETS), "w_step": W_STEPS, "dtype": DTYPES, "w_dtype": DTYPES, "device": DEVICES}
        for name, known in choices.items():
            _require(getattr(self, name) in known, name, getattr(self, name), f"must be one of {', '.join(known)}")
        unknown = set(self.arms) - set(ARMS)
        _require(bool(self.arms) and not unknown, "arms", self.arms, f"must be among {', '.join(ARMS)}")
        _require(len(set(self.arms)) == len(self.arms), "arms", self.arms, "names an arm twice")
        sound = bool(self.deltas) and all(0 <= delta < float("inf") for delta in self.deltas)
        _require(sound, "deltas", self.deltas, "needs at least one radius, each 0 or larger and finite")
        _require(len(set(self.deltas)) == len(self.deltas), "deltas", self.deltas, "names a radius twice")
        known = self.scheduler is None or bool(SCHEDULER.fullmatch(self.scheduler)) or Path(self.scheduler).is_file()
        _require(known, "scheduler", self.scheduler, "must be local:N, tcp://host:port or an existing file")

    @property
    def w_rate(self) -> float:
        """Learning rate of W in force."""
        return self.w_lr if self.w_lr is not None else {"mirror": 3e-3, "published": self.lr}[self.w_step]


_FULL: dict[str, Any] = dict(
    n_features=4096, k=64, n_anchors=4096, steps=5000, ablation_steps=2000, n_seeds=5, ablation_seeds=3, aux_k=256,
    dead_after=200, arms=tuple(ARMS), behaviour_tokens=20_000, heldout_tokens=50_000,
    anchor_tokens=180_000, kmeans_iterations=10)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": dict(
        model="random-gpt2", text="synthetic", layer=1, context=32, n_features=64, k=4, n_anchors=64, steps=40,
        batch_size=128, aux_k=8, dead_after=20, checkpoint_every=20, n_seeds=2, deltas=(0.0, 1.0), ablation_steps=20,
        ablation_seeds=2, longer_factor=2, behaviour_tokens=512, lr=1e-3, dtype="float32"),
    "quick": dict(tokens=100_000, steps=350, ablation_steps=120, kmeans_iterations=10, behaviour_tokens=6144),
    "medium": dict(_FULL, steps=1000, ablation_steps=400, ablation_seeds=2),
    "full": _FULL,
    "gpt2": dict(_FULL, model="gpt2", layer=9, text="Salesforce/wikitext:wikitext-2-raw-v1"),
}  # fmt: skip


def _require(condition: bool, name: str, value: object, fix: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {value!r}: {fix}")


FIELDS = {field.name: typing.get_type_hints(Config)[field.name] for field in dataclasses.fields(Config)}


def coerce(name: str, value: Any) -> Any:
    """Turn what papermill, YAML or a shell passed for field `name` into the field's type.

    `-p delta 1` arrives as an int, YAML's `1e-3` and every `--set` as a string, lists instead of tuples.
    Raises ConfigError for an unknown name or a value that is not of the field's type.
    """
    if name not in FIELDS:
        raise ConfigError(f"unknown parameter {name!r}: known are {', '.join(FIELDS)}")
    return _coerce(name, value, FIELDS[name])


def _coerce(name: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None or value in ("None", "none", ""):
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(_coerce(name, item, typing.get_args(kind)[0]) for item in _items(name, value))
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if kind is int:
            number = float(value)
            if isinstance(value, bool) or number != int(number):
                raise ValueError
            return int(number)
        if kind is float:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
    except (KeyError, ValueError, TypeError, OverflowError):
        raise ConfigError(f"{name} = {value!r}: expected {kind.__name__}") from None
    return str(value)


def _items(name: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        if not (text := value.strip()).startswith(("[", "(")):
            return [item.strip() for item in text.split(",") if item.strip()]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ConfigError(f"{name} = {value!r}: expected a list such as 0,0.5,1") from None
    return list(value) if isinstance(value, list | tuple) else [value]


def configure(parameters: Mapping[str, Any]) -> Config:
    """Config of `parameters["preset"]` with every other entry that is not None laid over it.

    `scheduler` defaults to $ARCHSAE_SCHEDULER. Raises ConfigError naming the field for an unknown name, a wrong type or
    a value out of range.
    """
    given = {name: coerce(name, value) for name, value in parameters.items() if value is not None}
    given.setdefault("scheduler", os.environ.get("ARCHSAE_SCHEDULER") or None)
    preset = given.setdefault("preset", "quick")
    _require(preset in PRESETS, "preset", preset, f"must be one of {', '.join(PRESETS)}")
    return Config(**(PRESETS[preset] | given))
