"""Notebook 03: figures, tables and the finding."""

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_study.experiments.dictionaries import BindingResult, DictionaryResult
from archsae_study.experiments.w_steps import WStepsResult
from archsae_study.formatting import percent, signed, table
from archsae_study.pages.style import FRAME_TITLES, finding, label_column, panels, setting
from archsae_study.pages.training import curves, log_table, quality_table
from archsae_study.protocol.arms import ARMS, main_arms
from archsae_study.protocol.contrasts import COST
from archsae_study.report import Report
from archsae_study.settings.config import Config

__all__ = [
    "Report",
    "binding_figure",
    "binding_table",
    "conclusion",
    "constraint",
    "curves",
    "headline",
    "log_table",
    "quality_table",
    "setting",
    "w_steps_figure",
    "w_steps_sentence",
    "w_steps_table",
]


def headline(ra: DictionaryResult, free: DictionaryResult, fair: DictionaryResult, binding: BindingResult) -> Markdown:
    """The finding of notebook 03; `free` starts from random atoms, `fair` from the centroids of `ra`."""
    moved = list(ra.cosine_with_start.values())[-1]
    values = dict(ra=ra, free=free, fair=fair, medians=_medians(binding), moved=moved, cost=COST)
    return finding("archetypal_sae", **values)


def _medians(binding: BindingResult) -> dict[str, float]:
    """By frame, the median cosine of atoms from random starts with the hull's cone."""
    return {frame: binding.of(frame).reaches[0].cosine["0.5"] for frame in FRAMES}


def conclusion(ra: DictionaryResult, binding: BindingResult, config: Config) -> Markdown:
    """What the constraint does and forbids."""
    return finding(
        "archetypal_sae_conclusion",
        violation=ra.quality["violation"],
        vacuous={frame: binding.of(frame).vacuous for frame in FRAMES},
        medians=_medians(binding),
        anchors=ra.log[-1].get("effective_anchors"),
        anchors_at_start=ra.log[0].get("effective_anchors"),
        bound=ra.log[-1].get("relax_at_bound"),
        n_anchors=config["n_anchors"],
        delta=config["delta"],
    )


def binding_table(binding: BindingResult) -> pd.DataFrame:
    """Largest cosine of the atoms of free dictionaries with any direction that the anchors' hull allows at δ = 0."""
    rows = [
        [
            f"{one.frame}, {reach.label}",
            "nothing" if one.vacuous else "directions",
            reach.cosine["0.05"],
            reach.cosine["0.5"],
            reach.cosine["0.95"],
            reach.support,
        ]
        for one in binding.frames
        for reach in one.reaches
    ]
    header = ["atoms", "the hull excludes", "cosine, 5 %", "median", "95 %", "anchors in the nearest point"]
    caption = (
        "Cosine of an atom of a free dictionary with the nearest direction that the anchors allow at δ = 0, quantiles "
        "over atoms. A radius δ > 0 widens the cone by what ‖Λ‖ ≤ δ can turn an atom of the hull."
    )
    return table(header, rows, caption)


def binding_figure(binding: BindingResult) -> Figure:
    """Distribution of these cosines: 1 is allowed, below it is excluded."""
    figure, axes = panels(len(binding.frames), width=5.0, sharex=True, sharey=True)
    for axis, one in zip(axes, binding.frames, strict=True):
        for place, reach in enumerate(one.reaches):
            colour = ARMS[main_arms(one.frame)[reach.role]].colour
            label = f"{reach.label}: median {reach.cosine['0.5']:.2f}"
            # the first is wider, to be seen where the second lies on it
            sns.ecdfplot(x=np.array(reach.cosines), ax=axis, color=colour, linewidth=5 - 3 * place, label=label)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False, fontsize=8)
        axis.set(
            xlim=(-0.02, 1.04),
            xlabel="cosine with the nearest direction in the cone",
            ylabel="share of free atoms at or below",
        )
        allowed = all(min(reach.cosines) > 0.999 for reach in one.reaches)
        axis.set_title(FRAME_TITLES[one.frame] + "\nall atoms lie at 1" * allowed)
    return figure


def w_steps_table(result: WStepsResult, frame: str) -> pd.DataFrame:
    """One row a way to move W, best validation R² first."""
    rows = [
        [
            ("→ " if one.way == result.in_use(frame).way else "") + one.label,
            one.r2_validation,
            one.r2_heldout,
            percent(one.dead_share),
            one.cosine_with_start,
            None if one.effective_anchors is None else round(one.effective_anchors),
            percent(one.relax_at_bound, 0),
        ]
        for one in result.of(frame)
    ]
    header = [
        "how W moves",
        "R² validation",
        "R² held out",
        "dead",
        "cosine with start",
        "effective anchors",
        "Λ at bound",
    ]
    caption = (
        f"{FRAME_TITLES[frame]}; {result.steps:,} steps, one seed, shared anchors; → in use. Smoothing: share of a "
        "starting row of W that is spread evenly over all anchors; free norms: atoms are not scaled to length 1; "
        "effective anchors: exp of the entropy of a row of W; Λ at bound: share of atoms with ‖Λ‖ = δ."
    )
    return table(header, rows, caption)


def w_steps_figure(result: WStepsResult) -> Figure:
    """Reconstruction against movement, one point a way to move W."""
    figure, axes = panels(len(FRAMES), width=8.0, height=4.6)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms, ends = main_arms(frame), []
        for one in result.of(frame):
            colour = ARMS[arms["topk-kmeans" if one.way == "free" else "ra"]].colour
            used = one.way == result.in_use(frame).way
            shape = dict(marker="D", markersize=9) if used else dict(marker="o", markersize=6)
            axis.plot(one.cosine_with_start, one.r2_validation, linestyle="none", color=colour, **shape)
            ends.append((f"{'in use: ' * used}{one.label}", colour, one.cosine_with_start, one.r2_validation))
        axis.set(xlabel="mean cosine of atoms with their start (1: not moved)", ylabel="R² on validation documents")
        axis.set_title(FRAME_TITLES[frame])
        axis.margins(y=0.1)
        label_column(axis, ends)
    return figure


def w_steps_sentence(result: WStepsResult) -> Markdown:
    """Which way is in use, and whether it is the best of these trials."""
    return finding("w_steps", result=result, frames=FRAMES)


def constraint(ra: DictionaryResult, fair: DictionaryResult) -> pd.DataFrame:
    """What the constraint leaves of the free dictionary from the same centroids, and that it holds."""
    last = ra.log[-1]
    rows = [
        ["largest violation of the constraint", f"{ra.quality['violation']:g}"],
        ["atoms with ‖Λ‖ = δ", percent(last["relax_at_bound"], 0)],
        ["effective anchors an atom (median of exp entropy of W)", f"{last['effective_anchors']:,.0f}"],
        ["R² less that of TopK from the same centroids", signed(ra.quality["r2"] - fair.quality["r2"])],
    ]
    return table(["", "value"], rows, "The constraint at the end of training")
