"""What features hold (07): sparse topic probes of every arm over seeds, with baselines, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from archsae_core.data.corpus import topic_indices
from archsae_core.metrics import features, probing
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.probing import Hits, NoPassages, Passages
from archsae_core.metrics.stability import Side, unrelated
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE
from archsae_core.models.training import as_batches
from archsae_study.arms import ARMS
from archsae_study.experiments import verdict
from archsae_study.experiments.stability import arm_runs
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

PASSAGE = 32
"""Tokens in a passage, or half a window where that is shorter."""
TRAIN_PASSAGES, HELDOUT_PASSAGES = 1024, 512
"""Passages that probes are fitted on and scored on, the same for every dictionary."""
PROBE_SIZES = (1, 5, 20)
"""Features a probe may use."""
HEADLINE_SIZE = 5
"""Size of the probes that the verdict is about."""


@dataclass(frozen=True)
class ProbeData:
    """Passages of one part of the documents."""

    activations: Any
    about: Passages

    def scan(self, sae: SAE) -> features.Scan:
        """Codes of every token of the passages."""
        return features.scan(sae, self.activations, self.about.rows.flatten())


def at_step_0(study: Study, run: Run) -> SAE:
    """The autoencoder of a run at step 0, its encoder calibrated as training does before the first step."""
    sae = study.untrained(run)
    batches = as_batches(study.train_activations, study.config.training.batch_size, run.seed)
    sae.calibrate(batches(0).to(study.device))
    return sae


def random_directions(study: Study) -> SAE:
    """Random directions with the mean and covariance of the trained archetypal atoms, as encoder and decoder."""
    atoms = unrelated(Side(study.sae(study.main_run("ra")).atoms().detach().cpu()), seed=0).atoms
    return SAE(FreeDictionary(atoms), study.config.dictionary.k, *study.normalizer).to(study.device)


def topics_of(study: Study) -> np.ndarray | None:
    """Index of every document's topic, −1 for one without; None where the text has no labels or only one."""
    names, topic = topic_indices(study.corpus.labels or ())
    return topic if len(names) > 1 else None


def probe_data(study: Study) -> tuple[ProbeData, ProbeData]:
    """Passages of the labelled training documents, and of the held-out ones. Raises NoPassages where there are none."""
    topics = topics_of(study)
    if topics is None:
        raise NoPassages("the text has no topic labels")
    length = min(PASSAGE, study.config.language_model.context // 2)
    parts = ((study.train_activations, TRAIN_PASSAGES), (study.heldout_activations, HELDOUT_PASSAGES))
    train, test = (ProbeData(part, probing.passages(part, topics, limit, length)) for part, limit in parts)
    return train, test


def probing_table(study: Study) -> dict[str, Any]:
    """Sparse topic probes of every arm over seeds, with baselines; token entropy of top contexts; the verdict."""
    try:
        data = probe_data(study)
    except NoPassages as error:
        return {"reason": str(error)}
    rows, hits = [], {}
    for arm in study.config.comparison.arms:
        runs = arm_runs(study, arm)
        measured = [measure(study.sae(run), data) for run in runs]
        hits[arm] = [found[0] for found in measured]
        r2 = float(np.mean([study.scores(run).quality.r2 for run in runs]))
        rows.append(_row(arm, ARMS[arm].label, "trained", measured) | {"r2": r2})
    controls = {f"{arm}, step 0": at_step_0(study, study.main_run(arm)) for arm in study.config.comparison.arms}
    controls["random directions"] = random_directions(study)
    rows += [_row(name, name, "control", [measure(sae, data)]) for name, sae in controls.items()]
    return _described(data, study.corpus.topics) | {"rows": [*rows, _raw_row(data)], "verdict": _verdict(rows, hits)}


def measure(sae: SAE, data: tuple[ProbeData, ProbeData]) -> tuple[dict[int | None, Hits], list[float | None]]:
    """Held-out decisions of the probes of every size, and the token entropy of every feature's top contexts."""
    scans = [part.scan(sae) for part in data]
    pooled = [(probing.pooled_codes(scan, part.about), part.about) for scan, part in zip(scans, data, strict=True)]
    return probing.probe(*pooled, PROBE_SIZES), features.token_entropy(scans[1], data[1].activations)


def _row(name: str, label: str, kind: str, measured: Sequence[tuple[Mapping, Sequence]]) -> dict[str, Any]:
    entropy = [[value for value in found[1] if value is not None] for found in measured]
    return {"name": name, "label": label, "kind": kind, "seeds": len(measured)} | {
        "accuracy": {str(k): _interval([found[0][k] for found in measured]) for k in PROBE_SIZES},
        "entropy": float(np.mean([np.median(values) for values in entropy if values])) if any(entropy) else None,
        "entropy_features": float(np.mean([len(values) for values in entropy])),
    }


def _interval(hits: Sequence[Hits]) -> dict[str, float | None]:
    return probing.accuracy_interval(hits)._asdict()


def _raw_row(data: tuple[ProbeData, ProbeData]) -> dict[str, Any]:
    """The same probes on the residual stream's own coordinates, and on all of them: the ceiling."""
    tables = []
    for part in data:
        x: Tensor = part.activations.gather(part.about.rows.flatten())
        tables.append((probing.pooled_activations(x, len(part.about.rows)), part.about))
    found = probing.probe(*tables, (*PROBE_SIZES, None))
    accuracy = {"all" if k is None else str(k): _interval([hits]) for k, hits in found.items()}
    return {"name": "raw", "label": "raw activations", "kind": "ceiling", "seeds": 1, "accuracy": accuracy} | {
        "entropy": None, "entropy_features": 0.0,
    }  # fmt: skip


def _verdict(rows: Sequence[Mapping[str, Any]], hits: Mapping[str, Sequence[Mapping[int, Hits]]]) -> dict[str, Any]:
    key = str(HEADLINE_SIZE)
    trained = {row["name"]: (row["accuracy"][key]["estimate"], row["r2"]) for row in rows if row["kind"] == "trained"}
    pair = verdict.independent_pair(trained)
    gains, published = ({k: _gain(hits, arms, k) for k in PROBE_SIZES} for arms in (pair, ("ra", "topk")))
    found = verdict.decide_interpretability(pair, gains[HEADLINE_SIZE])._asdict()
    by_size = {
        str(k): {"gain": gains[k] and gains[k]._asdict(), "published_gain": published[k] and published[k]._asdict()}
        for k in PROBE_SIZES
    }
    return found | by_size[key] | {"by_size": by_size}


def _gain(hits: Mapping[str, Sequence[Mapping[int, Hits]]], arms: tuple[str, str] | None, size: int) -> Interval | None:
    """Of the first arm over the second in probes of one size; None where one is missing."""
    if arms is None or not set(arms) <= hits.keys():
        return None
    return probing.accuracy_interval(*([found[size] for found in hits[arm]] for arm in arms))


def _described(data: tuple[ProbeData, ProbeData], topics: Sequence[str]) -> dict[str, Any]:
    train, test = (part.about for part in data)
    return {
        "headline": HEADLINE_SIZE,
        "topics": len(topics),
        "passage": train.rows.shape[1],
        "passages": {"train": len(train.rows), "heldout": len(test.rows)},
        "documents": {"train": len(np.unique(train.document)), "heldout": len(np.unique(test.document))},
    }


def runs(study: Study) -> list[tuple[Study, Run]]:
    """Every arm's runs, and the dictionary whose atoms the random directions are like."""
    compared = [(study, run) for arm in study.config.comparison.arms for run in arm_runs(study, arm)]
    return [*compared, (study, study.main_run("ra"))]


TABLE = Table(
    name="probing",
    result=dict,
    build=probing_table,
    runs=runs,
    fields=("seed", "n_seeds", "arms", "heldout_tokens"),
)
