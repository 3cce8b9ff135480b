"""`python -m archsae_study export`: a trained dictionary of a study in the files of other tools."""

import re
from dataclasses import replace
from pathlib import Path

from archsae_core.config import require, require_choice, require_given
from archsae_core.interop import to_saelens
from archsae_core.models.about import About
from archsae_study.commands.outputs import output_folder
from archsae_study.engine.runs import Run
from archsae_study.engine.study import HUB_NAMES, Study
from archsae_study.protocol.arms import ARMS, explored_arms

TOOLS = ("pretrained", "saelens", "neuronpedia", "sae-dashboard")
"""What a dictionary is written for; `pretrained` is the folder of `SAE.from_pretrained`, as the hub holds it."""
METRICS = ("r2", "l0", "cosine_centred", "dead_share", "dense_share")
"""Held-out scores that go with the weights."""


def about(study: Study, run: Run) -> About:
    """Where the dictionary of a run comes from, and its scores on held-out documents."""
    quality = study.scores(run).quality
    metrics = {name: float(getattr(quality, name)) for name in METRICS}
    return replace(study.about(run), arm=run.arm, prepend_bos=_begins_with_bos(study), metrics=metrics)


def _begins_with_bos(study: Study) -> bool:
    bos = study.tokenizer.bos_token_id
    return bos is not None and all(window[0] == bos for window in study.tokens.train.ids)


def export(
    study: Study,
    arm: str | None,
    folder: str | Path,
    to: str,
    *,
    licence: str | None = None,
    model_id: str | None = None,
    set_name: str | None = None,
) -> list[Path]:
    """Write the dictionary of an arm to `folder` for one of `TOOLS`, training it first where it is not; returns files.

    `arm` None is the archetypal one of the study's frame. `licence` goes onto the card of `pretrained` and into the
    metadata of `saelens`; `model_id` and `set_name` are Neuronpedia's names, by default the last part of the model's
    name and `archsae-<arm>`. Raises ConfigError for an unknown tool or arm, what the tool has no place for, a folder
    that holds something or cannot be written, and names that Neuronpedia cannot have.
    """
    arm = explored_arms(study.config.activations.frame)[1] if arm is None else arm
    require_choice("to", to, TOOLS)
    require_choice("arm", arm, ARMS)
    of_features = to in ("neuronpedia", "sae-dashboard")
    given = {"licence": licence, "model_id": model_id, "set_name": set_name}
    for name, value in [(name, value) for name, value in given.items() if value is not None]:
        require_given(name, value)
        require((name == "licence") != of_features, name, value, f"{to} has no place for it: leave it out")
    if licence is not None:
        fix = "must be an SPDX identifier, such as mit or apache-2.0"
        require(bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence)), "licence", licence, fix)
    folder = output_folder("folder", folder)
    if of_features:
        _write_features(study, arm, folder, to, model_id, set_name)
    else:
        run = study.shown_run(arm, study.config.comparison.seed)
        sae = study.sae(run)
        sae.about = replace(about(study, run), licence=licence)
        sae.save_pretrained(folder) if to == "pretrained" else to_saelens(sae, folder)
    return sorted(folder.iterdir())


def _write_features(study: Study, arm: str, folder: Path, to: str, model_id: str | None, set_name: str | None) -> None:
    from archsae_study.explorer import neuronpedia, of_study

    model = study.config["model"]
    names = {"model_id": model_id or HUB_NAMES.get(model, model).rstrip("/").split("/")[-1].lower()}
    names["set_name"] = set_name or f"archsae-{arm}"
    neuronpedia.check_names(**names)  # before hours of work
    explorer = of_study(study, arms=[arm], progress=study.progress)
    if to == "neuronpedia":
        neuronpedia.write_upload(explorer, arm, folder, **names)
    else:
        neuronpedia.write_dashboard(explorer, arm, folder, **names, context=study.config["context"])
