"""Notebook 06: figures, tables and the finding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import LEVEL
from archsae_study.experiments.ablation import PUBLISHED_SHARE, AblationResult, Row, Sweep
from archsae_study.experiments.checks import ChecksResult
from archsae_study.experiments.identifiability import IdentifiabilityResult, Learned
from archsae_study.formatting import interval, percent, table
from archsae_study.pages import style
from archsae_study.pages.style import FRAME_TITLES, error_bar, finding, label_column, panels
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import UNMOVED
from archsae_study.report import Report
from archsae_study.settings.config import Config

__all__ = [
    "Report",
    "checks_table",
    "conclusion",
    "headline",
    "identifiability_figure",
    "identifiability_table",
    "pareto",
    "radii_table",
    "setting",
]

LISTED = 12
"""Rows of the table of flagged runs, at most."""


def headline(ablation: AblationResult) -> Markdown:
    """The finding of notebook 06."""
    return finding("delta_ablation", **_values(ablation))


def conclusion(ablation: AblationResult) -> Markdown:
    """What the best radius of each frame does, beside a free dictionary from the same centroids."""
    free = {
        frame: next((row for row in ablation.sweep(frame).references if ARMS[row.arm].dictionary == "free"), None)
        for frame in FRAMES
    }
    return finding("delta_ablation_conclusion", free=free, dominated=_dominated, unmoved=UNMOVED, **_values(ablation))


def _dominated(sweep: Sweep, free: Row) -> list[str]:
    """Radii that a free dictionary surpasses in R² and in stability at once."""
    return [
        f"{row.delta:.3g}"
        for row in sweep.rows
        if row.stability and free.stability and row.mean("r2") is not None and free.mean("r2") is not None
        if row.mean("r2") < free.mean("r2") and row.stability.estimate < free.stability.estimate
    ]


def _values(ablation: AblationResult) -> dict[str, Any]:
    sweeps = {frame: ablation.sweep(frame) for frame in FRAMES}
    seeds = min((len(row.seeds) for sweep in sweeps.values() for row in sweep.rows), default=0)
    return {"sweeps": sweeps, "steps": ablation.steps, "seeds": seeds}


def setting(config: Config) -> Markdown:
    """One line on what was studied, with the sweep's own steps and seeds."""
    swept = config.comparison
    of = f"here {swept.ablation_steps:,} steps and {swept.ablation_seeds} seeds a radius"
    return Markdown(style.setting(config).data.replace("; preset", f", {of}; preset"))


def _name(row: Row) -> str:
    if row.delta is None:
        return ARMS[row.arm].label
    published = ", the paper's" * (f"{row.relative:.1%}" == f"{PUBLISHED_SHARE:.1%}")
    return f"δ = {row.delta:g} ({percent(row.relative)}{published})"


def radii_table(ablation: AblationResult, frame: str) -> pd.DataFrame:
    """One row a radius (as a share of the median anchor norm), then the dictionaries beside them."""
    sweep = ablation.sweep(frame)
    rows = [
        [
            ("◆ " if row.delta in sweep.frontier else "") + _name(row),
            row.mean("r2"),
            row.mean("mse"),
            percent(row.mean("dead_share")),
            interval(row.stability),
            row.mean("cosine_with_start"),
            percent(row.mean("relax_at_bound"), 0) if row.delta else None,
            "; ".join(dict.fromkeys(flag.message for flag in row.flags)) or "none",
        ]
        for row in [*sweep.rows, *sweep.references]
    ]
    seeds = " or ".join(map(str, sorted({len(row.seeds) for row in [*sweep.rows, *sweep.references]})))
    caption = (
        f"{FRAME_TITLES[frame]}. Radii, and their share of the median anchor norm; {seeds} seeds, "
        f"{ablation.steps:,} steps, own anchors. ◆: no other radius beats it in R² and stability at once; Λ at "
        "bound: share of atoms with ‖Λ‖ = δ. Intervals of stability need three seeds."
    )
    header = [frame, "R²", "MSE a dimension", "dead", "stability", "cosine with start", "Λ at bound", "flags"]
    return table(header, rows, caption)


def pareto(ablation: AblationResult) -> Figure:
    """Stability against R², one point a radius; the frontier is ringed and joined, others stand beside it."""
    figure, axes = panels(len(FRAMES), width=7.8, height=4.6)
    names = []
    for axis, frame in zip(axes, FRAMES, strict=True):
        sweep = ablation.sweep(frame)
        shown = [row for row in [*sweep.rows, *sweep.references] if row.stability and row.mean("r2") is not None]
        best = [row for row in shown if row.delta is not None and row.delta in sweep.frontier]
        best.sort(key=lambda row: row.mean("r2"))
        points = [(row.mean("r2"), row.stability.estimate) for row in best]
        if points:
            axis.plot(*zip(*points, strict=True), color="0.6", linewidth=1, linestyle=":", zorder=0)
        apart, with_bars = 0.0, False
        for row in shown:
            spread = [seed.r2 for seed in row.seeds if seed.r2 is not None]
            apart = max(apart, max(spread) - min(spread))
            x, y = row.mean("r2"), row.stability
            bars = {"xerr": [[x - min(spread)], [max(spread) - x]], "yerr": error_bar(y)} if error_bar(y) else {}
            with_bars |= bool(bars)
            ring = {"markeredgecolor": "black", "markeredgewidth": 1.5} if row in best else {}
            colour = ARMS[row.arm].colour
            axis.errorbar(x, y.estimate, **bars, fmt="o", color=colour, capsize=2, linewidth=1, markersize=8, **ring)
        names.append([(_name(row), ARMS[row.arm].colour, row.mean("r2"), row.stability.estimate) for row in shown])
        seeds = "bars: range over seeds" if with_bars else "mean over seeds"
        axis.set(
            xlabel=f"R² on held-out text ({seeds}, at most {apart:.3f} apart)",
            ylabel=f"stability between seeds (own anchors{f'; bars: {LEVEL:.0%}' * with_bars})",
        )
        axis.set_title(
            f"{FRAME_TITLES[frame]} (both panels span the same)\nblack ring: no other radius beats it in both"
        )
        axis.margins(0.08)
    _span_the_same(axes)
    for axis, of in zip(axes, names, strict=True):
        label_column(axis, of)
    return figure


def _span_the_same(axes: Sequence[Axes]) -> None:
    """Axes as long as the longest, each around the middle of its own."""
    for name in ("x", "y"):
        limits = np.array([getattr(axis, f"get_{name}lim")() for axis in axes])
        half = np.ptp(limits, axis=1).max() / 2
        for axis, middle in zip(axes, limits.mean(axis=1), strict=True):
            axis.set(**{f"{name}lim": (middle - half, middle + half)})


def checks_table(checks: ChecksResult) -> pd.DataFrame | Markdown:
    """Every run of the report that a check flags; one line where none is."""
    if not checks.flagged:
        return Markdown(
            f"All {checks.runs:,} runs pass: L0 is k, features live, R² is positive, atoms moved, constraints hold."
        )
    listed = checks.flagged if len(checks.flagged) <= LISTED else checks.flagged[: LISTED - 1]
    rows = [[one.run, "; ".join(flag.message for flag in one.flags)] for one in listed]
    if more := len(checks.flagged) - len(listed):
        rows.append([f"… and {more} more", "see results/checks.json"])
    caption = f"{len(checks.flagged)} of {checks.runs} runs are flagged"
    return table(["run", "flags"], rows, caption)


def identifiability_table(result: IdentifiabilityResult) -> pd.DataFrame:
    """Share of planted atoms found, by learner and case, under the share that the hull allows."""
    rows = [["allowed by the hull at δ = 0", *(case.allowed for case in result.cases)]]
    for place, learned in enumerate(result.cases[0].rows):
        rows.append([learned.label, *(case.rows[place].share for case in result.cases)])
    caption = f"Share of planted atoms found, {result.seeds} seeds, {LEVEL:.0%} over seeds, ends cut at 0 and 1"
    return table(["dictionary", *(case.label for case in result.cases)], rows, caption)


def identifiability_figure(result: IdentifiabilityResult) -> Figure:
    """Share of planted atoms found in each case; the dashed line is what the hull allows."""
    figure, axes = panels(len(result.cases), width=4.0, height=3.6, sharey=True)
    for axis, case in zip(axes, result.cases, strict=True):
        for place, row in enumerate(case.rows):
            axis.barh(place, row.share.estimate, xerr=error_bar(row.share), color=_colour(row), capsize=2)
        axis.axvline(case.allowed.estimate, color="black", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(case.rows)), [row.label for row in case.rows], fontsize=8)
        axis.set(xlim=(0, 1.08), xlabel="share of planted atoms found")
        what, _, how = case.label.partition(": ")
        axis.set_title(f"{what}:\n{how}", fontsize=8)
    axes[0].invert_yaxis()
    anchors = ", ".join(str(case.anchors) for case in result.cases)
    figure.supxlabel(
        f"{result.atoms} planted atoms in {result.d_model} dimensions, {result.active} in every sample; "
        f"{anchors} anchors (from the left);\ndictionaries of {result.features} features, k = {result.active}; "
        f"{result.seeds} seeds; whiskers: {LEVEL:.0%}; dashed: allowed by the hull at δ = 0",
        fontsize=8,
    )
    return figure


def _colour(row: Learned) -> str:
    """Of the arm that a learner stands for."""
    if row.kind == "free":
        return ARMS["topk-random-own" if "random" in row.label else "topk-kmeans-own"].colour
    return ARMS["raw-ra-published-own" if "published" in row.label else "ra-own"].colour
