"""The report's figures: one function a figure, each drawn from a table alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from archsae_study.pages.formatting import cell

PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "topk": PALETTE[7], "topk-kmeans": PALETTE[4], "topk-kmeans-indep": PALETTE[5], "ra": PALETTE[0],
    "ra-random-w": PALETTE[1], "ra-indep-anchors": PALETTE[2], "frozen": PALETTE[3], "frozen-indep": PALETTE[6],
}  # fmt: skip
"""One colour an arm, the same in every figure."""


def panels(columns: int, width: float = 4.4, height: float = 3.4) -> tuple[Figure, Sequence[Axes]]:
    """One row of axes in the report's style."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    figure, axes = plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    sns.despine(figure)
    return figure, list(axes[0])


def norms(table: Mapping[str, Any]) -> Figure:
    """Distribution of activation norms, in units of their median."""
    figure, (axis,) = panels(1, width=6)
    edges, counts = table["norm_histogram"]["edges"], table["norm_histogram"]["counts"]
    axis.stairs(counts, edges, fill=True, color=COLOURS["ra"], alpha=0.7)
    train = table["train"]
    axis.set(xlabel=f"‖x‖ / median ({train['median_norm']:.0f})", ylabel="training activations")
    ratio = train["position0_norm"] / train["median_norm"]
    axis.set_title(f"position 0 would stand at {ratio:.0f} (dropped)", fontsize=10)
    return figure


def anchor_occupancy(table: Mapping[str, Any]) -> Figure:
    """Activations per centroid, sorted: a flat curve means that no centroid is wasted."""
    figure, (axis,) = panels(1, width=6)
    occupancy = np.array(table["occupancy"])
    axis.plot(np.arange(1, len(occupancy) + 1), occupancy, color=COLOURS["ra"])
    axis.axhline(occupancy.mean(), color="0.5", linestyle=":", label="mean")
    axis.set(xlabel="centroid, by size", ylabel="activations assigned", yscale="log")
    axis.legend(frameon=False)
    return figure


def training(tables: Mapping[str, Mapping[str, Any]]) -> Figure:
    """R² on training batches, dead features and cosine of the atoms with their start, along training."""
    figure, axes = panels(3, width=3.9)
    for arm, table in tables.items():
        log, colour = table["log"], COLOURS[arm]
        steps = [row["step"] for row in log]
        axes[0].plot(steps, [row["r2"] for row in log], color=colour, label=arm)
        axes[1].plot(steps, [100 * row["dead"] for row in log], color=colour)
        cosines = {int(step): cosine for step, cosine in table["cosine_with_start"].items()}
        axes[2].plot(list(cosines), list(cosines.values()), color=colour, marker="o", markersize=3)
    lowest = min(row["r2"] for table in tables.values() for row in table["log"][len(table["log"]) // 4 :])
    axes[0].set(ylim=(max(0.0, lowest - 0.3), 1), xlabel="step", ylabel="R² (training batch)")
    axes[1].set(xlabel="step", ylabel="features silent of late (%)", ylim=(0, None))
    axes[2].set(xlabel="step", ylabel="mean cosine with the start", xscale="symlog", ylim=(None, 1.02))
    axes[0].legend(frameon=False)
    return figure


def weights(table: Mapping[str, Any]) -> Figure:
    """What the archetypal constraint does along training: Λ at its bound, effective number of anchors."""
    figure, axes = panels(2)
    log = table["log"]
    steps = [row["step"] for row in log]
    axes[0].plot(steps, [100 * row["relax_at_bound"] for row in log], color=COLOURS["ra"])
    axes[0].set(xlabel="step", ylabel="atoms with ‖Λ‖ = δ (%)", ylim=(-2, 102))
    axes[1].plot(steps, [row["effective_anchors"] for row in log], color=COLOURS["ra"])
    axes[1].set(xlabel="step", ylabel="effective anchors an atom (median)", ylim=(0, None))
    return figure


def evaluation(table: Mapping[str, Any]) -> Figure:
    """Both dictionaries side by side: R², CE loss recovered, dead features, firing rates."""
    figure, axes = panels(4, width=3.1)
    saes = table["saes"]
    places, colours, labels = (
        np.arange(len(saes)),
        [COLOURS[arm] for arm in saes],
        [arm.replace("-", "\n") for arm in saes],
    )
    scores = [("R² (held out)", "quality", "r2"), ("CE loss recovered (mean ablation)", "behaviour", "recovered_mean")]
    for axis, (label, part, name) in zip(axes, scores, strict=False):
        values = [sae[part][name] or 0.0 for sae in saes.values()]
        intervals = [sae[part]["intervals"][name] for sae in saes.values()]
        bars = np.array([interval or (value, value) for value, interval in zip(values, intervals, strict=True)]).T
        axis.bar(places, values, color=colours, width=0.6, yerr=np.abs(bars - np.array(values)), capsize=4)
        axis.set(ylabel=label, ylim=(0, 1), xticks=places, xticklabels=labels)
        for place, sae in zip(places, saes.values(), strict=True):
            axis.annotate(cell(sae[part][name]), (place, 0.02), ha="center", color="white")
    axes[2].bar(places, [100 * sae["quality"]["dead_share"] for sae in saes.values()], color=colours, width=0.6)
    axes[2].set(ylabel="dead features (%)", xticks=places, xticklabels=labels, ylim=(0, 10))
    for arm, sae in saes.items():
        density = sae["quality"]["density"]
        axes[3].stairs(density["counts"], density["edges"], color=COLOURS[arm], label=arm)
    axes[3].set(xlabel="log₁₀ firing rate", ylabel="features", xlim=(-5, 0))
    axes[3].legend(frameon=False)
    return figure


def stability(table: Mapping[str, Any]) -> Figure:
    """Stability between seeds at step 0 and after training, and along training, for every arm."""
    figure, axes = panels(2, width=6, height=4)
    arms, score = table["arms"], table["headline"]
    for place, (arm, row) in enumerate(reversed(arms.items())):
        start, end = (row[when]["scores"][score]["normalised"]["estimate"] for when in ("start", "end"))
        axes[0].plot([start, end], [place, place], color=COLOURS[arm], alpha=0.5, linewidth=2)
        axes[0].plot(start, place, "o", color="white", markeredgecolor=COLOURS[arm], markersize=8)
        pairs = [pair["normalised"][score] for pair in row["end"]["pairs"]]
        axes[0].plot(pairs, [place] * len(pairs), "|", color=COLOURS[arm], markersize=12)
        axes[0].plot(end, place, "o", color=COLOURS[arm], markersize=8)
        trajectory = row["trajectory"]
        axes[1].plot(
            [r["step"] for r in trajectory], [r["score"] for r in trajectory], "o-", color=COLOURS[arm], markersize=3
        )
    labels = [f"{row['label']}\nR² {row['r2']:.3f}" for row in reversed(arms.values())]
    axes[0].set_yticks(range(len(arms)), labels, fontsize=8)
    axes[0].set(
        xlabel="stability between seeds (0 = chance)\n○ step 0   ● after training   | pairs",
        ylim=(-0.6, len(arms) - 0.4),
    )
    axes[1].set(xlabel="step", ylabel="stability of seeds 0 and 1 (0 = chance)", xscale="symlog")
    for axis, line in ((axes[0], axes[0].axvline), (axes[1], axes[1].axhline)):
        line(0, color="0.7", linewidth=0.8, zorder=0)
        axis.margins(0.05)
    return figure


def ablation(table: Mapping[str, Any]) -> Figure:
    """R² and stability against delta on both axes, and against each other with the Pareto frontier."""
    figure, axes = panels(3, width=4.4, height=4.2)
    rows = [row for row in table["rows"] if row["r2"] is not None]
    for axis, name, label in ((axes[0], "r2", "R² (held out)"), (axes[1], "stability", "stability between seeds")):
        axis.plot(
            [row["delta"] for row in rows], [row[name] for row in rows], "o-", color=COLOURS["ra"], label="RA-SAE"
        )
        for reference in table["references"]:
            style = {"color": COLOURS[reference["arm"]], "linestyle": "--", "linewidth": 1}
            axis.axhline(reference[name], label=reference["label"], **style)
        axis.set(xlabel="δ (units where E‖x‖² = d_model)", ylabel=label)
        _delta_axis(axis, [row["delta"] for row in rows], table["median_norm"])
    axes[1].set_ylim(-0.05, 1.05)
    for row in table["references"]:
        axes[2].plot(row["r2"], row["stability"], "s", color=COLOURS[row["arm"]])
    for place, row in enumerate(rows):
        front = row["delta"] in table["pareto"]
        axes[2].plot(row["r2"], row["stability"], "o", color=COLOURS["ra"], fillstyle="full" if front else "none")
        offset = (0, -14 - 11 * (place % 3))
        point = (row["r2"], row["stability"])
        axes[2].annotate(
            f"δ={row['delta']:g}", point, fontsize=7, xytext=offset, textcoords="offset points", ha="center"
        )
    axes[2].set(xlabel="R² (held out)", ylabel="stability between seeds", ylim=(-0.05, 1.05))
    axes[2].set_title("filled: no radius beats it in both", fontsize=9)
    axes[2].margins(x=0.15)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _delta_axis(axis: Axes, deltas: Sequence[float], median_norm: float) -> None:
    """One tick a radius below, the same as a share of the median centroid norm above."""
    smallest = min((delta for delta in deltas if delta > 0), default=1.0)
    axis.set_xscale("symlog", linthresh=smallest)
    axis.set_xticks(deltas, [f"{delta:g}" for delta in deltas])
    axis.minorticks_off()
    top = axis.twiny()
    top.set_xscale("symlog", linthresh=smallest)
    top.set_xlim(axis.get_xlim())
    top.set_xticks(deltas, [f"{delta / median_norm:.1%}" for delta in deltas], fontsize=7, rotation=45)
    top.minorticks_off()
    top.set_xlabel("δ / median ‖C_i‖", fontsize=8)


def feature_profile(table: Mapping[str, Any]) -> Figure:
    """One feature: its non-zero codes, how often it fires by topic, its largest weights on the anchors."""
    figure, axes = panels(3, width=4)
    histogram = table["feature"]["histogram"]
    axes[0].stairs(histogram["counts"], histogram["edges"], fill=True, color=COLOURS["ra"], alpha=0.7)
    axes[0].set(xlabel="code when it fires", ylabel="held-out tokens")
    topics = table["topics"] or {"all": table["feature"]["firing_rate"]}
    names = [topic.replace("$", r"\$") for topic in topics]  # labels are data: no formula starts in them
    axes[1].barh(names, [100 * rate for rate in topics.values()], color=COLOURS["ra-random-w"])
    axes[1].set(xlabel="fires on (% of the topic's tokens)")
    weights = table["weights"]
    axes[2].plot(np.arange(1, len(weights) + 1), weights, "o-", color=COLOURS["ra-indep-anchors"], markersize=3)
    axes[2].set(xlabel="anchor, by weight", ylabel="weight in W", yscale="log", xscale="log")
    return figure
