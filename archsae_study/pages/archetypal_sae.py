"""Notebook 03: figures, tables and the finding."""

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_study.experiments.dictionaries import BindingResult, DictionaryResult
from archsae_study.experiments.w_steps import WStepsResult
from archsae_study.formatting import percent, table
from archsae_study.pages.style import FRAME_TITLES, finding, panels, setting
from archsae_study.pages.training import curves, log_table, quality_table
from archsae_study.protocol.arms import ARMS, main_arms
from archsae_study.report import Report

__all__ = [
    "Report",
    "binding_figure",
    "binding_table",
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


def headline(ra: DictionaryResult, free: DictionaryResult, binding: BindingResult) -> Markdown:
    """The finding of notebook 03."""
    medians = {frame: binding.of(frame).reaches[0].cosine["0.5"] for frame in FRAMES}
    moved = list(ra.cosine_with_start.values())[-1]
    return finding("archetypal_sae", ra=ra, free=free, medians=medians, moved=moved, last=ra.log[-1])


def binding_table(binding: BindingResult) -> pd.DataFrame:
    """Largest cosine of the atoms of free dictionaries with any direction that the anchors' hull allows at δ = 0."""
    rows = [
        [
            f"{one.frame}, {reach.label}",
            "nothing" if one.vacuous else "yes",
            reach.cosine["0.05"],
            reach.cosine["0.5"],
            reach.cosine["0.95"],
            reach.support,
        ]
        for one in binding.frames
        for reach in one.reaches
    ]
    header = ["atoms", "the hull excludes", "cosine, 5 %", "median", "95 %", "anchors in the nearest point"]
    return table(header, rows)


def binding_figure(binding: BindingResult) -> Figure:
    """Distribution of these cosines: 1 is allowed, below it is excluded."""
    figure, axes = panels(len(binding.frames), width=5.0, sharex=True, sharey=True)
    for axis, one in zip(axes, binding.frames, strict=True):
        for place, reach in enumerate(one.reaches):
            colour = ARMS[main_arms(one.frame)[reach.role]].colour
            sns.ecdfplot(x=np.array(reach.cosines), ax=axis, color=colour, linewidth=2)
            middle = reach.cosine["0.5"]
            axis.annotate(
                f"{reach.label}\nmedian {middle:.2f}",
                (middle, 0.7 - 0.3 * place),
                xytext=(-8, 6) if middle > 0.6 else (8, -14),
                textcoords="offset points",
                ha="right" if middle > 0.6 else "left",
                color=colour,
                fontsize=8,
            )
        axis.set(
            xlim=(-0.02, 1.04), xlabel="cosine with the nearest direction in the cone", ylabel="share of free atoms"
        )
        axis.set_title(FRAME_TITLES[one.frame])
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
            None if one.relax_at_bound is None else f"{one.relax_at_bound:.0%}",
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
    return table(header, rows)


def w_steps_figure(result: WStepsResult) -> Figure:
    """Reconstruction against movement, one point a way to move W."""
    figure, axes = panels(len(FRAMES), width=5.4, height=4.2)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms = main_arms(frame)
        for one in result.of(frame):
            colour = ARMS[arms["topk-kmeans" if one.way == "free" else "ra"]].colour
            used = one.way == result.in_use(frame).way
            axis.plot(
                one.cosine_with_start,
                one.r2_validation,
                "D" if used else "o",
                color=colour,
                markersize=9 if used else 6,
            )
        free = next(one for one in result.of(frame) if one.way == "free")
        best, used = result.best(frame), result.in_use(frame)
        named = {free.way: "no constraint", used.way: f"in use: {used.label}", "adam-lr": "as published"}
        named |= {best.way: f"best: {best.label}"} if best.way != used.way else {}
        # the two best may stand side by side
        apart = {} if best.way == used.way else {best.way: 5, used.way: -10}
        for one in result.of(frame):
            if one.way in named:
                right = one.cosine_with_start < 0.7
                axis.annotate(
                    named[one.way],
                    (one.cosine_with_start, one.r2_validation),
                    xytext=(8 if right else -8, apart.get(one.way, -3)),
                    textcoords="offset points",
                    ha="left" if right else "right",
                    fontsize=8,
                )
        axis.set(
            xlim=(0, 1.05), xlabel="mean cosine of atoms with their start", ylabel="R² on the validation documents"
        )
        axis.set_title(FRAME_TITLES[frame])
    return figure


def w_steps_sentence(result: WStepsResult) -> Markdown:
    """Which way is in use, and whether it is the best of these trials."""
    return finding("w_steps", result=result, frames=FRAMES)


def constraint(ra: DictionaryResult, free: DictionaryResult) -> pd.DataFrame:
    """What the constraint leaves of the free dictionary, and that it holds."""
    last = ra.log[-1]
    rows = [
        ["largest violation of the constraint", f"{ra.quality['violation']:g}"],
        ["atoms with ‖Λ‖ = δ", f"{last['relax_at_bound']:.0%}"],
        ["effective anchors an atom (median of exp entropy of W)", f"{last['effective_anchors']:,.0f}"],
        ["R² less that of the free dictionary", f"{ra.quality['r2'] - free.quality['r2']:+.3f}".replace("-", "−")],
    ]
    return table(["", "value"], rows)
