"""Notebook 06: figures, tables and the finding."""

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import Interval
from archsae_study.experiments.ablation import AblationResult, Row, Sweep
from archsae_study.experiments.checks import ChecksResult
from archsae_study.experiments.identifiability import IdentifiabilityResult
from archsae_study.formatting import interval, percent, table
from archsae_study.pages.style import FRAME_TITLES, direct_label, error_bar, finding, panels, setting
from archsae_study.protocol.arms import ARMS
from archsae_study.report import Report

__all__ = [
    "Report",
    "checks_table",
    "headline",
    "identifiability_figure",
    "identifiability_table",
    "pareto",
    "radii_table",
    "setting",
]


def headline(ablation: AblationResult) -> Markdown:
    """The finding of notebook 06."""
    return finding("delta_ablation", sweeps={frame: ablation.sweep(frame) for frame in FRAMES}, steps=ablation.steps)


def _name(row: Row) -> str:
    return ARMS[row.arm].label if row.delta is None else f"δ = {row.delta:g} ({row.relative:.1%})"


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
            None if row.delta is None else percent(row.mean("relax_at_bound"), 0),
            "; ".join(dict.fromkeys(flag.message for flag in row.flags)) or "none",
        ]
        for row in [*sweep.rows, *sweep.references]
    ]
    return table([frame, "R²", "MSE, raw", "dead", "stability", "cosine with start", "Λ at bound", "flags"], rows)


def pareto(ablation: AblationResult) -> Figure:
    """Stability against R², one point a radius with its interval; the frontier drawn, other dictionaries beside it."""
    figure, axes = panels(len(FRAMES), width=6.4, height=4.6)
    for axis, frame in zip(axes, FRAMES, strict=True):
        sweep = ablation.sweep(frame)
        _frontier(axis, sweep)
        for row in sweep.rows:
            _dot(axis, row, ARMS[row.arm].colour, f"δ = {row.delta:g}", hollow=row.delta not in sweep.frontier)
        for row in sweep.references:
            _dot(axis, row, ARMS[row.arm].colour, ARMS[row.arm].label)
        axis.set(xlabel="R² on held-out text", ylabel="stability between seeds (own anchors)")
        axis.margins(x=0.22, y=0.12)
        axis.set_title(f"{FRAME_TITLES[frame]}\nfilled: no other radius beats it in both")
    return figure


def _frontier(axis, sweep: Sweep) -> None:
    points = sorted(
        (row.mean("r2"), row.stability.estimate) for row in sweep.rows if row.delta in sweep.frontier and row.stability
    )
    if len(points) > 1:
        axis.plot(*zip(*points, strict=True), color="0.6", linewidth=1, linestyle=":", zorder=0)


def _dot(axis, row: Row, colour: str, label: str, *, hollow: bool = False) -> None:
    if row.stability is None or row.mean("r2") is None:
        return
    x, y = row.mean("r2"), row.stability
    spread = [seed.r2 for seed in row.seeds if seed.r2 is not None]
    bars = {"xerr": [[x - min(spread)], [max(spread) - x]], "yerr": error_bar(y)}
    face = "white" if hollow else colour
    axis.errorbar(
        x, y.estimate, **bars, fmt="o", color=colour, markerfacecolor=face, capsize=2, linewidth=1, markersize=6
    )
    direct_label(axis, x, y.estimate, label, colour, fontsize=7)


def checks_table(checks: ChecksResult) -> pd.DataFrame | Markdown:
    """Every run of the report that a check flags; one line where none is."""
    if not checks.flagged:
        return Markdown(
            f"All {checks.runs:,} runs pass: L0 is k, features live, R² is positive, atoms moved, constraints hold."
        )
    rows = [[one.run, "; ".join(flag.message for flag in one.flags)] for one in checks.flagged[:12]]
    if len(checks.flagged) > 12:
        rows.append([f"… and {len(checks.flagged) - 12} more", "see results/checks.json"])
    return table([f"run ({len(checks.flagged)} of {checks.runs} flagged)", "flags"], rows)


def identifiability_table(result: IdentifiabilityResult) -> pd.DataFrame:
    """Share of planted atoms found, by learner and case, under the share that the hull allows."""
    rows = [["allowed by the hull at δ = 0", *(case.allowed for case in result.cases)]]
    for place, learned in enumerate(result.cases[0].rows):
        rows.append([learned.label, *(case.rows[place].share for case in result.cases)])
    return table(["dictionary", *(case.label for case in result.cases)], rows)


def identifiability_figure(result: IdentifiabilityResult) -> Figure:
    """Share of planted atoms found in each case; the dashed line is what the hull allows."""
    figure, axes = panels(len(result.cases), width=3.6, height=3.4, sharey=True)
    colours = {"free": ARMS["topk-kmeans-own"].colour, "archetypal": ARMS["ra-own"].colour}
    for axis, case in zip(axes, result.cases, strict=True):
        for place, row in enumerate(case.rows):
            axis.barh(place, row.share.estimate, xerr=_error(row.share), color=colours[row.kind], capsize=2)
        axis.axvline(case.allowed.estimate, color="black", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(case.rows)), [row.label for row in case.rows], fontsize=8)
        axis.set(xlim=(0, 1.08), xlabel="planted atoms found")
        axis.set_title(case.key)
    axes[0].invert_yaxis()
    return figure


def _error(found: Interval) -> list[list[float]] | None:
    bars = error_bar(found)
    return None if bars is None else [[max(0.0, part[0])] for part in bars]
