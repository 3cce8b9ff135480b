"""The explorer of a study's trained dictionaries."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from archsae_core.config import ConfigError, require
from archsae_core.data.activations import ActivationSet
from archsae_core.data.language_model import d_model
from archsae_core.metrics.probing import NoPassages
from archsae_core.models.sae import SAE
from archsae_core.storage import environment
from archsae_study.engine.runs import Run, seeds_of
from archsae_study.engine.study import HUB_NAMES, Study
from archsae_study.explorer.build import Explorer, Material, MaterialPart, Probes, Subject
from archsae_study.protocol.arms import ARMS, explored_arms

LABELS = {"free": "TopK", "archetypal": "RA-SAE", "frozen": "frozen"}
"""Of dictionaries, where each kind is on show once; else arms have their own labels."""
HELDOUT_TOKENS = 200_000
"""Held-out activations that are looked at."""
TRAIN_TOKENS = 200_000
"""Training activations among which the nearest to each anchor are looked for."""


def of_study(
    study: Study,
    *,
    arms: Sequence[str] | None = None,
    saes: Mapping[str, SAE] | None = None,
    progress: bool = False,
) -> Explorer:
    """The dictionaries of the study's main seed in some arms, each matched with every other seed of its arm.

    `arms` None are the free and the archetypal arm of the study's frame. `saes` are shown beside them under their own
    keys: other people's, of the same layer of the same model (`archsae_core.interop.open_sae`). Dictionaries that are
    not trained yet are trained first. Raises ConfigError for an arm that there is not, and for an SAE of another width.
    """
    arms = explored_arms(study.config.activations.frame) if arms is None else arms
    unknown = [arm for arm in arms if arm not in ARMS]
    if len(set(arms)) < len(arms):
        raise ConfigError(f"arms = {tuple(arms)!r}: name each arm once")
    if unknown or not arms:
        raise ConfigError(f"arms = {tuple(arms)!r}: name at least one of {', '.join(ARMS)}")
    config, width = study.config, d_model(study.model)
    for name, sae in (saes or {}).items():
        of_layer = f"layer {config['layer']} has {width}"
        require(sae.d_model == width, "saes", name, f"has d_model = {sae.d_model}, {of_layer}")
        own = sae.about.layer in (None, config["layer"])
        require(
            own, "saes", name, f"is of layer {sae.about.layer}, not {config['layer']}: set `layer`, or leave it out"
        )
        fix = f"does not read the residual stream ({sae.about.source}): leave it out"
        require(not sae.about.reads_elsewhere, "saes", name, fix)
    keys = guest_keys(saes or {}, arms)
    guests = [_guest(study, key, *named) for key, named in zip(keys, (saes or {}).items(), strict=True)]
    return Explorer(
        [*(_subject(study, arm, arms) for arm in arms), *guests],
        _material(study),
        title="Feature explorer",
        model=config["model"],
        layer=config["layer"],
        text=config["text"],
        note=" ".join([_note(study), *_other_models(study, saes or {})]),
        progress=progress,
    )


def subject_runs(study: Study, arm: str) -> list[Run]:
    """The run of an arm that is looked at, of the study's main seed, and those of every other seed after it.

    Of seeds with centroids of their own, those are left out whose centroids are the main seed's.
    """
    run = study.shown_run(arm, study.config.comparison.seed)
    others = [study.shown_run(arm, seed) for seed in seeds_of(arm, study.config) if seed != run.seed]
    if ARMS[arm].own and ARMS[arm].anchors == "kmeans":  # there are as many parts of the text as `anchor_folds`
        others = [other for other in others if study.fold(other) != study.fold(run)]
    return [run, *others]


def _subject(study: Study, arm: str, arms: Sequence[str]) -> Subject:
    (run, *others), kind = subject_runs(study, arm), ARMS[arm].dictionary
    once = [ARMS[other].dictionary for other in arms].count(kind) == 1
    return Subject(
        key=arm,
        label=LABELS[kind] if once else ARMS[arm].label,
        sae=study.sae(run),
        seed=run.seed,
        others={other.seed: study.sae(other) for other in others},
        delta=study.of(run).config.dictionary.delta,
        r2=study.scores(run).quality.r2,
    )


def guest_keys(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Keys of other people's SAEs, which name files: letters, digits, `-`, `_`, `.` of their names, each but once."""
    used, found = set(taken), []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip(".-") or "sae"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        key = next(key for key in itertools.chain([plain], numbered) if key not in used)
        used.add(key)
        found.append(key)
    return found


def _guest(study: Study, key: str, name: str, sae: SAE) -> Subject:
    delta = getattr(sae.dictionary, "delta", None)
    return Subject(key=key, label=name, sae=sae.to(study.device), seed=sae.about.seed, delta=delta)


def _material(study: Study) -> Material:
    heldout, train = study.heldout_activations, study.train_activations
    return Material(
        heldout=MaterialPart(heldout, study.tokens.heldout, _rows(heldout, HELDOUT_TOKENS)),
        train=MaterialPart(train, study.tokens.train, _rows(train, TRAIN_TOKENS)),
        tokenizer=study.tokenizer,
        model=study.model,
        labels=study.corpus.labels,
        probes=_probes(study),
    )


def _rows(activations: ActivationSet, limit: int) -> Int64[np.ndarray, " n"]:
    """The first kept rows: documents are in shuffled order, so that they are a fair sample."""
    return activations.kept[:limit].numpy()


def _probes(study: Study) -> Probes | None:
    from archsae_study.experiments.probing import probe_data  # here, since a table of experiments shows the explorer's

    try:
        train, heldout = probe_data(study)
    except NoPassages:
        return None
    names = list(study.corpus.topics)
    return Probes((train.activations, train.about), (heldout.activations, heldout.about), names)


def _other_models(study: Study, saes: Mapping[str, SAE]) -> Iterator[str]:
    """A sentence for each of other people's SAEs that names another language model: tools have names of their own."""
    mine = _short(HUB_NAMES.get(study.config["model"], study.config["model"]))
    for name, sae in saes.items():
        if sae.about.model and _short(sae.about.model) not in (mine, _short(study.config["model"])):
            yield f"{name} says that it is of the language model {sae.about.model}."


def _short(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def _note(study: Study) -> str:
    made: dict[str, Any] = environment()
    return f"Preset {study.config.preset}, commit {made['commit']}, torch {made['torch']}, {made['device']}."
