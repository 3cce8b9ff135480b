"""Figures of what runs are compared by, each drawn from a table alone."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from archsae_study.experiments import verdict
from archsae_study.pages.control_plots import with_errors
from archsae_study.pages.plots import COLOURS, panels


def budgets(table: Mapping[str, Any]) -> Figure:
    """Stability against reconstruction, one path an arm, from its first scored budget of tokens to its last."""
    figure, (axis,) = panels(1, width=8.0, height=4.4)
    for arm, row in table["arms"].items():
        r2 = [budget["r2"] for budget in row["budgets"]]
        y, errors = with_errors([budget["stability"] for budget in row["budgets"]])
        axis.errorbar(r2, y, errors, color=COLOURS[arm], marker="o", markersize=3, capsize=2, label=row["label"])
        axis.plot(r2[-1], y[-1], "o", color=COLOURS[arm], markersize=8)
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set(xlabel="R² (held out); the large dot is the last budget", ylabel="stability between seeds (0 = chance)")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def gains(table: Mapping[str, Any], longer: Mapping[str, Any]) -> Figure:
    """Gain as published and gain of independent runs after each budget of tokens, longer runs included."""
    figure, (axis,) = panels(1, width=8.0, height=4.4)
    found = verdict.by_budget(table["arms"])
    further = verdict.gain_by_budget(longer["arms"]) if longer["arms"] else []
    lines = [
        ("as published: ra − topk", COLOURS["ra"], found, "published_gain"),
        ("independent runs", COLOURS["ra-indep-anchors"], found, "independent_gain"),
        ("independent runs, trained for longer", COLOURS["ra-random-w"], further, "gain"),
    ]
    for label, colour, rows, gain in lines:
        if rows:
            y, errors = with_errors([row[gain] for row in rows])
            x = [row["tokens"] for row in rows]
            axis.errorbar(x, y, errors, color=colour, marker="o", markersize=4, capsize=3, label=label)
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.axhline(verdict.MARGIN, color="0.3", linewidth=0.8, linestyle="--", label="margin of the rule")
    axis.set(xscale="log", xlabel="tokens seen", ylabel="gain in stability of RA-SAE over TopK")
    axis.legend(frameon=False, fontsize=8)
    return figure


def w_steps(table: Mapping[str, Any]) -> Figure:
    """Validation R² of each way to move W against how far the atoms moved."""
    figure, (axis,) = panels(1, width=8.0, height=4.4)
    colours = {"ra": COLOURS["ra"], "frozen": COLOURS["frozen"], "topk-kmeans": COLOURS["topk-kmeans"]}
    for place, row in enumerate(sorted(table["rows"], key=lambda row: row["r2"])):
        axis.barh(place, row["r2"], color=colours[row["arm"]], alpha=0.8)
        axis.text(max(row["r2"], 0), place, f" {row['r2']:.3f}, {row['dead_share']:.0%} dead", va="center", fontsize=8)
    axis.set_yticks(
        range(len(table["rows"])), [row["name"] for row in sorted(table["rows"], key=lambda row: row["r2"])]
    )
    axis.set(xlabel=f"R² on the validation documents after {table['steps']:,} steps")
    axis.margins(x=0.25)
    return figure
