"""The small tables that the report rests on, each built from a study's artefacts. Everything here is JSON-able."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from archsae_core.metrics import contexts, stability
from archsae_core.metrics import features as inspection
from archsae_core.metrics.behaviour import behaviour
from archsae_core.metrics.reconstruction import document_sums, summarise
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.hull import weights_for
from archsae_core.models.training import read_log
from archsae_core.storage import read_json
from archsae_study.arms import MAIN_ARMS
from archsae_study.config import ConfigError
from archsae_study.runs import moved, read_quality
from archsae_study.study import Study


def activations(study: Study) -> dict[str, Any]:
    """Documents, tokens and norms of the activations, what was dropped, and examples of the norm distribution."""
    train, heldout = study.train_activations, study.heldout_activations
    edges = np.linspace(0, 4, 41)
    counts = np.histogram(train.norm.numpy() / train.stats["median_norm"], bins=edges)[0]
    documents = {part: len(set(getattr(study.tokens, part).document.tolist())) for part in study.tokens._fields}
    return {
        "documents": documents,
        "tokens": {part: getattr(study.tokens, part).n_tokens for part in study.tokens._fields},
        "labels": sorted(set(study.corpus.labels)) if study.corpus.labels else None,
        "train": train.stats,
        "heldout": heldout.stats,
        "scale": study.normalizer.scale,
        "norm_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def anchors(study: Study) -> dict[str, Any]:
    """Checks of the shared anchors: occupancy, distinctness, unexplained variance; how well they are found again."""
    folder = study.anchor_folder()
    points = load_file(folder / "anchor_points.safetensors")
    first, seed = study.anchors(0), study.config.comparison.n_seeds + 1  # folds have the seeds up to n_seeds
    refit = {"same documents, another start": _agreement(first, study.fit_anchors(0, seed).points)}
    if study.config.comparison.n_seeds > 1:
        refit["other documents, another start"] = _agreement(first, study.anchors(1))
    return read_json(folder / "summary.json") | {
        "artefact": _artefact(folder),
        "occupancy": sorted(points["occupancy"].tolist(), reverse=True),
        "refit": refit,
        "gamma": stability.gamma(points["anchors"]),
    }


def _agreement(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> dict[str, float]:
    compared = stability.compare(stability.Side(a), stability.Side(b))
    return {name: compared[name]["hungarian_centred"] for name in ("raw", "chance", "normalised")}


def dictionary(study: Study, arm: str) -> dict[str, Any]:
    """One trained dictionary: its log, held-out quality, and how far its atoms moved."""
    run = study.main_run(arm)
    folder = study.run_folder(run)
    table = {"arm": arm, "artefact": _artefact(folder), "log": read_log(folder), "quality": read_quality(folder)}
    return table | {"moved": moved(folder, run.steps)}


def _artefact(folder: Path) -> str:
    """Where an artefact lies in the store."""
    return f"{folder.parent.name}/{folder.name}"


def hull(study: Study) -> dict[str, Any]:
    """The trained free dictionary rewritten as an archetypal one with delta = 0: what does the hull exclude?"""
    run = study.main_run("topk")
    sae, stored = study.sae(run), load_file(study.anchor_folder() / "anchor_points.safetensors")
    try:
        weights = weights_for(sae.atoms().detach().cpu(), stored["anchors"], stored["occupancy"])
    except ConfigError as error:
        return {"reason": str(error)}
    inside = ArchetypalDictionary(stored["anchors"], weights.float(), delta=0.0)
    norms = inside.hull_points().norm(dim=1)
    cosine = stability.drift(sae.atoms().cpu(), inside.atoms())
    sae.dictionary = inside.to(study.device)
    return {
        "r2_free": read_quality(study.run_folder(run))["r2"],
        "r2_inside": summarise(document_sums(sae, study.scored_batches("heldout"))).r2,
        "cosine": cosine,
        "violation": inside.violation(),
        "norm": float(norms.median()),
        "anchor_norm": float(stored["anchors"].norm(dim=1).median()),
    }


def evaluation(study: Study) -> dict[str, Any]:
    """Dictionaries on held-out text: quality, and CE and KL with the reconstruction spliced in.

    The free one is there twice: from a random start, and from the centroids that the archetypal one starts from.
    """
    runs = {arm: study.main_run(arm) for arm in MAIN_ARMS}
    spliced = behaviour(
        study.model,
        study.config.language_model.layer,
        study.tokens.heldout,
        {arm: study.sae(run) for arm, run in runs.items()},
        study.normalizer.mean,
        max_tokens=study.config.comparison.behaviour_tokens,
        max_norm=study.train_activations.threshold,
    )
    quality = {arm: read_quality(study.run_folder(run)) for arm, run in runs.items()}
    saes = {arm: {"quality": quality[arm], "behaviour": spliced["arms"][arm]} for arm in runs}
    kept = {name: spliced[name] for name in ("n_tokens", "n_documents", "n_kept_outliers", "clean")}
    return kept | {"saes": saes, "baselines": {name: spliced["arms"][name] for name in ("mean", "zero")}}


def features(study: Study) -> dict[str, Any]:
    """The archetypal dictionary's features: a scan, one in depth, its output tokens, its archetypes."""
    sae, tokenizer = study.sae(study.main_run("ra")), study.tokenizer
    heldout, windows = study.heldout_activations, study.tokens.heldout
    found = inspection.scan(sae, heldout)
    chosen = (
        study.config.comparison.feature if study.config.comparison.feature is not None else inspection.strongest(found)
    )
    labels = study.corpus.labels
    return {
        "scan": _scan_rows(study, found, tokenizer),
        "feature": inspection.inspect(found, chosen, heldout, windows, tokenizer),
        "topics": inspection.topic_rates(found, chosen, heldout, labels) if labels else None,
        "lens": inspection.logit_lens(study.model, sae, chosen, tokenizer),
        "archetypes": inspection.archetypes(sae, chosen, study.train_activations, study.tokens.train, tokenizer),
        "weights": sae.dictionary.W[chosen].detach().topk(min(50, len(sae.dictionary.C))).values.tolist(),
    }


def _scan_rows(study: Study, found: inspection.Scan, tokenizer: Any) -> list[dict[str, Any]]:
    """The twelve strongest features that fire often enough to judge and on at most a tenth of the tokens."""
    heldout, summary = study.heldout_activations, inspection.table(found)
    entropy = inspection.token_entropy(found, heldout)
    counts = np.diff(found.offsets)
    fit = (counts >= 20) & (np.array(summary["firing_rate"]) <= 0.1)
    order = np.argsort(-np.array(summary["max"]) * fit, kind="stable")[: min(12, int(fit.sum()))]
    rows = []
    for feature in order.tolist():
        row = summary["top_rows"][feature][0]
        text = contexts.context(heldout, study.tokens.heldout, tokenizer, row, {}, before=8, after=4)
        row = {name: summary[name][feature] for name in ("firing_rate", "max", "mean_active")}
        rows.append({"feature": feature, "entropy": entropy[feature], "context": text} | row)
    return rows
