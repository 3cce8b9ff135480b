"""Notebook 04: figures, tables and the finding."""

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import Interval
from archsae_study.experiments.evaluation import ROLES, EvaluatedSAE, EvaluationResult
from archsae_study.formatting import cell, interval, percent, table
from archsae_study.pages.style import FRAME_TITLES, direct_label, error_bar, finding, panels, setting
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import COST
from archsae_study.report import Report

__all__ = ["Report", "baselines", "conclusion", "density", "flagged", "headline", "scores", "scores_table", "setting"]

LABELS = {"topk": "TopK,\nrandom start", "topk-kmeans": "TopK,\nk-means start", "ra": "RA-SAE,\nsame centroids"}


def headline(evaluation: EvaluationResult) -> Markdown:
    """The finding of notebook 04."""
    return finding("evaluation", evaluation=evaluation, gaps=_gaps(evaluation))


def conclusion(evaluation: EvaluationResult) -> Markdown:
    """In which frame the constraint costs reconstruction."""
    return finding("evaluation_conclusion", gaps=_gaps(evaluation), cost=COST)


def _gaps(evaluation: EvaluationResult) -> dict[str, float]:
    """By frame, R² of the archetypal dictionary less that of the free one from the same centroids."""
    return {
        frame: evaluation.of("ra", frame).quality["r2"] - evaluation.of("topk-kmeans", frame).quality["r2"]
        for frame in FRAMES
    }


def _with_interval(scores: dict, name: str) -> Interval:
    low, high = scores["intervals"].get(name) or (None, None)
    return Interval(scores[name], low, high)


def scores_table(evaluation: EvaluationResult, frame: str) -> pd.DataFrame:
    """Scores of the dictionaries of a frame with 95 % intervals over documents."""
    saes = [evaluation.of(role, frame) for role in ROLES]
    rows = [
        ["R²", *(interval(_with_interval(sae.quality, "r2")) for sae in saes)],
        ["MSE a dimension, raw units", *(cell(sae.quality["mse"]) for sae in saes)],
        ["MSE, normalised", *(cell(sae.quality["mse_normalised"]) for sae in saes)],
        ["L0", *(cell(sae.quality["l0"]) for sae in saes)],
        ["features used", *(percent(sae.quality["utilisation"]) for sae in saes)],
        ["features dead", *(percent(sae.quality["dead_share"]) for sae in saes)],
        ["features on > 10 % of tokens", *(percent(sae.quality["dense_share"]) for sae in saes)],
        ["cosine, centred", *(cell(sae.quality["cosine_centred"]) for sae in saes)],
    ]
    spliced = {
        "ce_increase": "CE increase, nats",
        "kl": "KL, nats",
        "recovered_mean": "CE recovered, mean ablation",
        "recovered_zero": "CE recovered, zero ablation",
    }
    for name, label in spliced.items():
        values = [sae.behaviour[name] for sae in saes]
        shown = [
            None if v is None else interval(_with_interval(s.behaviour, name))
            for v, s in zip(values, saes, strict=True)
        ]
        rows.append([label, *shown])
    caption = (
        f"{FRAME_TITLES[frame]}. One seed, shared anchors; 95 % over documents. Dead: on none of the scored tokens."
    )
    return table([f"{frame}", *(LABELS[sae.role].replace("\n", " ") for sae in saes)], rows, caption)


def scores(evaluation: EvaluationResult) -> Figure:
    """R² and CE recovered of every dictionary with intervals, both frames side by side."""
    figure, axes = panels(2, width=7.2, height=3.8)
    parts = (
        ("quality", "r2", "R² on held-out text"),
        ("behaviour", "recovered_mean", "CE loss recovered (mean ablation)"),
    )
    for axis, (part, name, label) in zip(axes, parts, strict=True):
        ticks = []
        for block, frame in enumerate(FRAMES):
            for place, role in enumerate(ROLES):
                sae = evaluation.of(role, frame)
                x = block * (len(ROLES) + 0.7) + place
                ticks.append((x, LABELS[role]))
                _bar(axis, x, sae, part, name)
            middle = block * (len(ROLES) + 0.7) + 1
            axis.annotate(
                FRAME_TITLES[frame], (middle, 1.04), xycoords=("data", "axes fraction"), ha="center", fontsize=9
            )
        axis.set_xticks(*zip(*ticks, strict=True), fontsize=7)
        axis.set(ylabel=label, ylim=(0, 1), xlabel="one seed each; whiskers: 95 % over documents")
    return figure


def _bar(axis, x: float, sae: EvaluatedSAE, part: str, name: str) -> None:
    scored = getattr(sae, part)
    if scored[name] is None:
        axis.annotate("not defined", (x, 0.02), ha="center", fontsize=7, rotation=90)
        return
    found = _with_interval(scored, name)
    axis.bar(x, max(found.estimate, 0), color=ARMS[sae.arm].colour, width=0.75, yerr=error_bar(found), capsize=3)
    axis.annotate(f"{found.estimate:.3f}", (x, 0.03), ha="center", color="white", fontsize=8)


def density(evaluation: EvaluationResult) -> Figure:
    """How often features fire: histogram of log10 firing rates, one line a dictionary."""
    figure, axes = panels(len(FRAMES), width=5.2, height=3.4, sharey=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        for place, role in enumerate(ROLES):
            sae = evaluation.of(role, frame)
            histogram = sae.quality["density"]
            axis.stairs(histogram["counts"], histogram["edges"], color=ARMS[sae.arm].colour, linewidth=1.8)
            label = f"{LABELS[role]}: {sae.quality['n_dead']} dead".replace("\n", " ")
            direct_label(
                axis, 0.02, 0.94 - 0.08 * place, label, ARMS[sae.arm].colour, xycoords="axes fraction", xytext=(0, 0)
            )
        axis.axvline(-1, color="0.6", linestyle=":", linewidth=1)
        axis.set(xlabel="log₁₀ firing rate (dotted: dense; dead features have none)", ylabel="features", xlim=(-5, 0))
        axis.set_title(FRAME_TITLES[frame])
    return figure


def baselines(evaluation: EvaluationResult) -> pd.DataFrame:
    """The clean language model, and what replacing the residual by its mean or by zero costs."""
    rows = [["clean model", evaluation.clean["ce"], None]]
    rows += [[f"{name} ablation", scores["ce"], scores["ce_increase"]] for name, scores in evaluation.baselines.items()]
    return table(["residual stream", "CE, nats a token", "increase"], rows, "What CE recovered is measured against")


def flagged(evaluation: EvaluationResult, k: int) -> pd.DataFrame | Markdown:
    """Expectations about these dictionaries that do not hold; one line where all do."""
    rows = [
        [f"{sae.frame}, {LABELS[sae.role]}".replace("\n", " "), flag.message]
        for sae in evaluation.saes
        for flag in sae.flags
    ]
    if not rows:
        return Markdown(f"No flags: L0 is k = {k} within 1 %, less than half of the features are dead, R² is positive.")
    return table(["dictionary", "flag"], rows)
