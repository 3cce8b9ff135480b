"""The parameters of a study: nested by concern, given flat by papermill and a shell, which this module alone maps."""

import ast
import dataclasses
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archsae_core.config import (
    ActivationConfig,
    AnchorConfig,
    ConfigError,
    CorpusConfig,
    DictionaryConfig,
    LanguageModelConfig,
    TrainingConfig,
    require,
    require_choice,
    require_counts,
    require_given,
    require_not_negative,
    require_path,
    shown,
)
from archsae_core.storage import jsonable
from archsae_study.protocol.arms import ARMS, CHOSEN
from archsae_study.settings.values import PATHS, located, plain

SCHEDULER = re.compile(r"local:[1-9]\d{0,3}|(tcp|tls|ws|wss)://[^\s/:]+:\d{1,5}")
"""`scheduler` where it is no file."""
WHOLE = re.compile(r"[+-]?\d+")


QUICK_ARMS = (
    "topk-random-own", "topk-kmeans-own", "topk-kmeans-shared", "topk-random-shared", "ra-own", "ra-shared",
    "raw-topk-kmeans-own", "raw-ra-published-own", "raw-ra-own",
)  # fmt: skip
"""The arms that the primary contrasts compare, those of the 2 × 2 on centred data, and TopK from one shared random
start."""
SMOKE_ARMS = (
    *QUICK_ARMS, "raw-frozen-own", "raw-topk-random-own", "raw-topk-kmeans-shared", "raw-ra-published-shared",
    "raw-ra-shared",
)  # fmt: skip
"""With them every square and every share that the report states has its arms."""


FULL_SIZE_STEPS = ("full_size_steps", "raw_full_size_steps", "published_full_size_steps")
"""Lengths of the contrasts at the sizes of `full`."""


@dataclass(frozen=True)
class ComparisonConfig:
    """Which runs a study compares, on how much held-out text, and where they are trained."""

    seed: int = 0
    """Seed of the dictionaries of notebooks 02 to 04 and 07."""
    n_seeds: int = 3
    """Seeds per arm in 05, at most."""
    arms: tuple[str, ...] = QUICK_ARMS
    """Arms compared in 05, keys of `ARMS`; each has its own number of seeds, `n_seeds` at most."""
    longer_factor: int = 1
    """Steps of the longest runs, in multiples of `steps`: the arms of g1 and g3, in 05. 1 leaves them out."""
    other_settings: bool = True
    """Whether 05 repeats g1 and g3 at another layer, with half of k and with δ = 0, and runs its controls."""
    full_size_steps: int = 0
    """Steps of the arms of g1 at the sizes of `full` (`FULL_SIZES`), in 05. 0 leaves them out."""
    raw_full_size_steps: int = 0
    """Steps of the arms of g3, on raw data, at those sizes, in 05. 0 leaves them out."""
    published_full_size_steps: int = 0
    """Steps of the arms of g2, RA-SAE as published on raw data, at those sizes, in 05. 0 leaves them out."""
    other_model: str | None = None
    """Second language model, as `model` is given, on which 05 repeats g1 and g3. None leaves it out."""
    other_model_layer: int = 12
    """Block of the second language model after which activations are read, counted from 0."""
    deltas: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
    """Radii swept in 06; the paper's headline radius, 1 % of the median norm of the anchors, comes on top."""
    ablation_steps: int = 300
    """Optimiser steps of each run in 06."""
    ablation_seeds: int = 2
    """Seeds per delta in 06."""
    heldout_tokens: int | None = None
    """At most this many held-out tokens are scored; None takes all."""
    behaviour_tokens: int = 8192
    """Held-out tokens for CE and KL of spliced reconstructions; bounds those of swaps, ablations and R² in training."""
    probe_tasks: int | None = None
    """Binary tasks of 07's sparse probes, evenly spaced over those of `sae-probes`; None takes all, 0 none."""
    probe_prompts: int = 512
    """Training prompts of each task at most, and half as many for the test."""
    feature: int | None = None
    """Feature of the archetypal dictionary inspected in 07; None takes the one that tells a topic best."""
    scheduler: str | None = None
    """Where to train: `local:N` processes, `tcp://host:port` or a scheduler file of Dask; None: in this process."""

    def __post_init__(self) -> None:
        counts = ("n_seeds", "ablation_steps", "ablation_seeds", "behaviour_tokens", "heldout_tokens", "longer_factor")
        require_counts(self, counts)
        for name in ("n_seeds", "ablation_seeds"):
            value = getattr(self, name)
            require(value >= 2, name, value, "must be at least 2: stability is compared between seeds")
        scored = self.heldout_tokens
        fix = "must be at least 2: R² compares reconstructions with how activations differ"
        require(scored is None or scored >= 2, "heldout_tokens", scored, fix)
        require_not_negative(self, ("seed", *FULL_SIZE_STEPS, "other_model_layer"))
        require(self.other_model != "", "other_model", self.other_model, "is empty: leave it out, or name a model")
        require(self.seed < 2**40, "seed", self.seed, "must be below 2**40")
        unknown = set(self.arms) - set(ARMS)
        require(bool(self.arms) and not unknown, "arms", self.arms, f"must be among {', '.join(ARMS)}")
        require(len(set(self.arms)) == len(self.arms), "arms", self.arms, "names an arm twice")
        require_not_negative(self, ("probe_tasks",) if self.probe_tasks is not None else ())
        fix = "must be at least 8: half as many are for the test, and both halves need both classes"
        require(self.probe_prompts >= 8, "probe_prompts", self.probe_prompts, fix)
        sound = bool(self.deltas) and all(0 <= delta < float("inf") for delta in self.deltas)
        require(sound, "deltas", self.deltas, "needs at least one radius, each 0 or larger and finite")
        require(len(set(self.deltas)) == len(self.deltas), "deltas", self.deltas, "names a radius twice")
        for name in ("other_model", "scheduler"):
            if (value := getattr(self, name)) is not None:
                require_path(name, value)
        known = self.scheduler is None or bool(SCHEDULER.fullmatch(self.scheduler)) or Path(self.scheduler).is_file()
        require(known, "scheduler", self.scheduler, "must be local:N, tcp://host:port or an existing file")


@dataclass(frozen=True)
class Config:
    """Everything that determines a study's results. `preset` only names where the defaults came from."""

    preset: str = "quick"
    """One of `PRESETS`."""
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    activations: ActivationConfig = field(default_factory=ActivationConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)

    def __post_init__(self) -> None:
        require_choice("preset", self.preset, PRESETS)
        feature, last = self.comparison.feature, self.dictionary.n_features - 1
        require(feature is None or 0 <= feature <= last, "feature", feature, f"must lie in 0 … {last}")

    def flat(self) -> dict[str, Any]:
        """Every parameter by its flat name."""
        return {name: getattr(self._group(name), name) for name in FIELDS}

    def __getitem__(self, name: str) -> Any:
        """The value of a parameter by its flat name. Raises KeyError for a name there is not."""
        return getattr(self._group(name), name)

    def changed(self, **changes: Any) -> "Config":
        """The same with some parameters, by flat name, set to other values. Raises ConfigError as their groups do."""
        return _nested(self.flat() | changes)

    def _group(self, name: str) -> Any:
        group = GROUP_OF[name]
        return self if group is None else getattr(self, group)


BESIDE = ("other_model", "other_model_layer")
"""Parameters that add to a report and change nothing else of it: who does not ask for what they add is shown it, where
it is committed, and need not have it."""

TAKES_ALL = ("tokens", "anchor_tokens", "heldout_tokens", "probe_tasks")
"""Limits of what is taken, which the text `all` lifts where a preset sets one."""

FULL_SIZES: dict[str, int] = dict(
    n_features=4096, k=64, n_anchors=4096, anchor_tokens=180_000, aux_k=256, dead_after=200)  # fmt: skip
"""Sizes of the full protocol, and what goes with them."""
_FULL: dict[str, Any] = dict(
    FULL_SIZES, steps=5000, ablation_steps=2000, n_seeds=8, ablation_seeds=2, arms=tuple(ARMS),
    behaviour_tokens=20_000, heldout_tokens=50_000, longer_factor=2, kmeans_iterations=10)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": dict(
        model="random-gpt2", text="synthetic", layer=1, context=32, n_features=64, k=4, n_anchors=64, steps=40,
        batch_size=128, aux_k=8, dead_after=20, checkpoint_every=20, n_seeds=2, deltas=(0.0, 1.0), ablation_steps=20,
        ablation_seeds=2, longer_factor=2, behaviour_tokens=512, lr=1e-3, dtype="float32", anchor_folds=2,
        probe_tasks=4, probe_prompts=128, arms=SMOKE_ARMS),
    "quick": dict(
        tokens=80_000, steps=100, lr=1e-3, ablation_steps=30, kmeans_iterations=10, behaviour_tokens=2048,
        anchor_folds=3, deltas=(0.0, 1.0, 5.0), probe_tasks=3, probe_prompts=128, other_settings=False),
    "medium": dict(
        steps=1500, ablation_steps=300, n_seeds=5, anchor_folds=5, anchor_tokens=100_000, kmeans_iterations=10,
        arms=tuple(ARMS), dead_after=100, heldout_tokens=50_000, probe_tasks=32, probe_prompts=256, longer_factor=1,
        full_size_steps=5000, raw_full_size_steps=5000),
    "full": dict(_FULL, text="bbc-news+sae-probes"),
    "gpt2": dict(_FULL, model="gpt2", layer=9, text="Salesforce/wikitext:wikitext-2-raw-v1"),
}  # fmt: skip


def _types() -> tuple[dict[str, Any], dict[str, str | None]]:
    """Type and group of each parameter by its flat name; the group of `preset` is None, since it stands in none."""
    kinds: dict[str, Any] = {"preset": str}
    groups: dict[str, str | None] = {"preset": None}
    hints = typing.get_type_hints(Config)
    for group in dataclasses.fields(Config):
        if not dataclasses.is_dataclass(hints[group.name]):
            continue
        for name, kind in typing.get_type_hints(hints[group.name]).items():
            if name in kinds:
                raise TypeError(f"{name} stands in two groups of parameters")
            kinds[name], groups[name] = kind, group.name
    return kinds, groups


FIELDS, GROUP_OF = _types()


def _nested(flat: Mapping[str, Any]) -> Config:
    groups: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        groups.setdefault(GROUP_OF[name] or "", {})[name] = value
    kinds = typing.get_type_hints(Config)
    own = groups.pop("", {})
    return Config(**own, **{group: kinds[group](**values) for group, values in groups.items()})


def coerce(name: str, value: Any) -> Any:
    """Turn what a notebook, papermill, YAML or a shell passed for field `name` into the field's type.

    `-p delta 1` arrives as an int, YAML's `1e-3` and every `--set` as a string, lists instead of tuples; paths, numbers
    and arrays of other libraries come from notebooks. A path is made absolute, from the working directory. `None` as a
    text, or `all` where the field limits what is taken, is None in spite of the preset. Raises ConfigError for an
    unknown name or a value that is not of the field's type.
    """
    if name not in FIELDS:
        raise ConfigError(f"unknown parameter {shown(name)}: known are {', '.join(FIELDS)}")
    value = plain(name, value)
    if value == "":
        require_given(name, value)
    value = _coerce(name, value, FIELDS[name])
    return located(PATHS[name], value) if name in PATHS and value is not None else value


def _coerce(name: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None or value in ("None", "none") or (value == "all" and name in TAKES_ALL):
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(_coerce(name, item, typing.get_args(kind)[0]) for item in _items(name, value))
    if kind in (int, float) and isinstance(value, str) and "_" in value:  # Python takes 1_0 for 10
        raise ConfigError(f"{name} = {shown(value)}: expected {kind.__name__}, without _")
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if kind is int:
            if isinstance(value, bool):
                raise ValueError
            if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
                return int(value)  # a float would round it beyond 2**53
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(value) if isinstance(value, int) else int(number)
        if kind is float:
            if isinstance(value, bool):
                raise ValueError
            return float(value) + 0.0  # −0 is 0
    except (KeyError, ValueError, TypeError, OverflowError):
        raise ConfigError(f"{name} = {shown(value)}: expected {kind.__name__}") from None
    if isinstance(value, bool) and name == "bos":  # papermill's -p makes a boolean of the word
        return str(value).lower()
    if not isinstance(value, str):  # 0012 and 4e10 would have become 12 and 40000000000.0 on the way here
        raise ConfigError(f"{name} = {shown(value)}: expected text: put it in quotes, or give it to papermill by -r")
    return value


def _items(name: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        if not (text := value.strip()).startswith(("[", "(")):
            items = [item.strip() for item in text.removesuffix(",").split(",")]
            for item in items:
                require(
                    bool(item), name, value, "holds an empty item, perhaps of a variable that is not set: leave it out"
                )
            return items
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two of lists in lists
            raise ConfigError(f"{name} = {shown(value)}: expected a list such as 0,0.5,1") from None
    return list(value) if isinstance(value, list | tuple) else [value]


def given(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Some parameters of a Config as a notebook's cell takes them: plain values; None is left to the preset.

    Where None is a choice of its own, it is the text `all`.
    """
    values = {name: jsonable(config[name]) for name in names}
    values |= {name: "all" for name, value in values.items() if value is None and name in TAKES_ALL}
    return {name: value for name, value in values.items() if value is not None}


def configure(parameters: Mapping[str, Any]) -> Config:
    """Config of `parameters["preset"]` with every other entry that is not None laid over it; names are flat.

    `scheduler` defaults to $ARCHSAE_SCHEDULER. Raises ConfigError naming the field for an unknown name, a wrong type or
    a value out of range.
    """
    if not isinstance(parameters, Mapping):
        fix = "give a mapping of names to values, such as {'preset': 'quick'}"
        raise ConfigError(f"parameters = {shown(parameters)}: {fix}")
    own = {name: coerce(name, value) for name, value in parameters.items() if value is not None}
    if "scheduler" not in own and (address := os.environ.get("ARCHSAE_SCHEDULER")):
        own["scheduler"] = coerce("scheduler", address)
    preset = own.setdefault("preset", "quick")
    require_choice("preset", preset, PRESETS)
    found = _nested(PRESETS[preset] | own)
    usual = _nested(PRESETS[preset])
    for name, chosen in CHOSEN[found.activations.frame].items():
        if name in own and own[name] == usual[name] and usual[name] not in (None, chosen):
            fix = f"there it is {chosen} where nothing else is given, and this value cannot be told from nothing"
            require(False, name, own[name], f"in the frame {found.activations.frame!r}, {fix}: give one beside it")
    return found
