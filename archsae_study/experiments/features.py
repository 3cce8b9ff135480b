"""The archetypal dictionary's features: a scan, one in depth, its output tokens, its archetypes (07)."""

from typing import Any

import numpy as np

from archsae_core.metrics import contexts
from archsae_core.metrics import features as inspection
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study


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


def _runs(study: Study) -> list[Run]:
    return [study.main_run("ra")]


TABLE = Table(name="features", result=dict, build=features, runs=_runs, fields=("seed", "feature"))
