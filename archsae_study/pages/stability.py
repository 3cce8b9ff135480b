"""Notebook 05: figures, tables and the finding."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import Interval, seed_interval
from archsae_core.metrics.stability import HEADLINE
from archsae_study.experiments.generality import GeneralityResult
from archsae_study.experiments.longer import LongerResult
from archsae_study.experiments.reappearance import ReappearanceResult
from archsae_study.experiments.stability import ArmResult, StabilityResult
from archsae_study.experiments.structure import StructureResult
from archsae_study.experiments.swap import SwapResult
from archsae_study.formatting import cell, interval, percent, signed, table
from archsae_study.pages.style import FRAME_TITLES, direct_label, finding, heat_map, marker, panels, point, setting
from archsae_study.protocol import contrast_cases, contrasts
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import Decision
from archsae_study.report import Report

LABEL_GAP = 0.045
"""Least distance between two names beside paths, in units of stability."""

__all__ = [
    "Report",
    "advice",
    "advice_table",
    "arms_table",
    "between_arms",
    "by_metric_table",
    "collapse_table",
    "decisions_table",
    "equal_terms_table",
    "gains_figure",
    "generality_table",
    "headline",
    "interaction_table",
    "longer_figure",
    "longer_table",
    "movement",
    "reappearance_table",
    "reasons",
    "setting",
    "stability_figure",
    "structure_table",
    "subspaces_table",
    "swap_figure",
    "swap_table",
    "synthetic_table",
    "trajectories",
]


def headline(result: StabilityResult) -> Markdown:
    """The finding of notebook 05: what the rule says of the three primary contrasts."""
    return finding("stability", decisions={one.contrast.key: one for one in result.decisions()}, arms=result.by_key())


def decisions_table(result: StabilityResult | LongerResult) -> pd.DataFrame:
    """One row a primary contrast: the gain, what it costs, and the verdict."""
    rows = []
    for one in result.decisions():
        share = one.share.interval
        rows.append(
            [
                f"{one.contrast.key}: {one.contrast.label}",
                len(one.seeds),
                signed(one.gain),
                signed(one.delta_r2),
                signed(one.delta_ce_recovered),
                one.ra_cosine.estimate if one.ra_cosine else None,
                None if share is None else f"{share.estimate:.0%}",
                f"{one.verdict}",
            ]
        )
    header = ["contrast", "seeds", "gain in stability", "ΔR²", "ΔCE recovered", "RA cosine with start"]
    return table([*header, "share of the published-style gain", "verdict"], rows)


def reasons(result: StabilityResult) -> Markdown:
    """Why the rule says so, one line a contrast."""
    return Markdown("\n".join(f"- **{one.contrast.key}, {one.verdict}**: {one.reason}." for one in result.decisions()))


def arms_table(result: StabilityResult, frame: str) -> pd.DataFrame:
    """One row an arm of a frame: reconstruction, stability before and after training, movement."""
    rows = []
    for arm in _of(result, frame):
        paired = len(arm.seeds) > 1
        rows.append(
            [
                ARMS[arm.arm].label,
                len(arm.seeds),
                float(np.mean(arm.r2)),
                float(np.mean(arm.mse)),
                percent(float(np.mean(arm.dead_share))),
                seed_interval(np.array(arm.trajectory[0].stability)).estimate if paired else None,
                interval(arm.end[HEADLINE].interval()) if paired else None,
                float(np.mean(arm.cosine_with_start)),
            ]
        )
    header = [
        "arm",
        "seeds",
        "R²",
        "MSE, raw units",
        "dead",
        "stability at step 0",
        "stability at the end",
        "cosine with start",
    ]
    return table(header, rows)


def _of(result: StabilityResult, frame: str) -> list[ArmResult]:
    return [arm for arm in result.arms if ARMS[arm.arm].frame == frame]


def stability_figure(result: StabilityResult) -> Figure:
    """Stability of every arm from step 0 to the end, with R², MSE and intervals over seeds, one panel a frame."""
    rows = max(len(_of(result, frame)) for frame in FRAMES)
    figure, axes = panels(len(FRAMES), width=7.2, height=0.62 * rows + 1.4, sharex=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms = [arm for arm in _of(result, frame) if len(arm.seeds) > 1][::-1]
        for place, arm in enumerate(arms):
            colour = ARMS[arm.arm].colour
            start = seed_interval(np.array(arm.trajectory[0].stability)).estimate
            end = arm.end[HEADLINE].interval()
            axis.plot([start, end.estimate], [place, place], color=colour, alpha=0.4, linewidth=3, zorder=1)
            axis.plot(start, place, "|", color=colour, markersize=14, markeredgewidth=2)
            point(axis, end.estimate, place, end, **marker(arm.arm))
        labels = [f"{ARMS[arm.arm].label}\nR² {np.mean(arm.r2):.3f}, MSE {np.mean(arm.mse):,.1f}" for arm in arms]
        axis.set_yticks(range(len(arms)), labels, fontsize=8)
        axis.set(ylim=(-0.6, len(arms) - 0.4), xlim=(-0.05, 1.05))
        axis.set(xlabel="stability between seeds (0 = chance)\n| before training   ● after, hollow: shared start")
        axis.set_title(FRAME_TITLES[frame])
        axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    return figure


def gains_figure(result: StabilityResult) -> Figure:
    """The primary contrasts with their 98.3 % intervals, beside the margin of the rule."""
    decisions = [one for one in result.decisions() if one.gain is not None]
    figure, (axis,) = panels(1, width=8.4, height=0.75 * max(len(decisions), 1) + 1.4)
    for place, one in enumerate(reversed(decisions)):
        point(axis, one.gain.estimate, place, one.gain, color=ARMS[one.contrast.ra].colour)
        axis.annotate(
            f"{one.verdict}",
            (one.gain.estimate, place),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axis.axvline(0, color="0.7", linewidth=0.8)
    axis.axvline(contrasts.MARGIN, color="0.3", linewidth=1, linestyle="--")
    axis.annotate(
        "margin", (contrasts.MARGIN, 1.0), xycoords=("data", "axes fraction"), fontsize=8, ha="left", va="bottom"
    )
    axis.set_yticks(range(len(decisions)), [_wrapped(one) for one in reversed(decisions)], fontsize=8)
    axis.set(
        ylim=(-0.6, len(decisions) - 0.3), xlabel="gain in stability of RA-SAE over TopK, starts of each seed's own"
    )
    return figure


def _wrapped(one: Decision) -> str:
    return f"{one.contrast.key}: {one.contrast.label}".replace(" − ", "\n− ")


def movement(result: StabilityResult) -> Figure:
    """Stability against movement: do seeds agree because they learned the same, or because they never moved?"""
    return _paths(
        result,
        lambda at: 1 - np.mean(at.cosine_with_start),
        {"alpha": 0.5},
        xlabel="movement: 1 − mean cosine with the own start",
        xlim=(-0.03, 1.25),
    )


def trajectories(result: StabilityResult) -> Figure:
    """Stability against reconstruction along training: one path an arm, the large dot its end."""
    return _paths(
        result,
        lambda at: np.mean(at.r2) if np.mean(at.r2) > 0 else None,
        {"alpha": 0.6, "marker": "o", "markersize": 3},
        xlabel="R² on held-out text",
        xlim=(0, 1.35),
    )


def _paths(
    result: StabilityResult, along: Callable[[Any], float | None], line: Mapping[str, Any], **axes_options: Any
) -> Figure:
    """Stability along training of every arm with two seeds, one path an arm; where `along` is None, no point."""
    figure, axes = panels(len(FRAMES), width=6.0, height=4.4, sharey=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        ends = {}
        for arm in _of(result, frame):
            if len(arm.seeds) < 2:
                continue
            path = [(x, _mean(at.stability)) for at in arm.trajectory if (x := along(at)) is not None]
            if not path:
                continue
            axis.plot(*zip(*path, strict=True), color=ARMS[arm.arm].colour, linewidth=1.2, **line)
            axis.plot(*path[-1], "o", markersize=8, **marker(arm.arm))
            ends[arm.arm] = path[-1]
        _label_ends(axis, ends)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set(ylabel="stability between seeds", **axes_options)
        axis.set_title(FRAME_TITLES[frame])
    return figure


def _label_ends(axis: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Names of arms beside the ends of their paths, pushed apart where ends are close."""
    heights = np.array([y for _, y in ends.values()])
    order = np.argsort(heights)
    apart = heights[order]
    for place in range(1, len(apart)):
        apart[place] = max(apart[place], apart[place - 1] + LABEL_GAP)
    for (key, (x, y)), height in zip((list(ends.items())[i] for i in order), apart, strict=True):
        beside = {"xytext": (x + 0.04, height), "textcoords": "data", "fontsize": 7}
        line = {"arrowprops": {"arrowstyle": "-", "color": ARMS[key].colour, "linewidth": 0.5}} if height > y else {}
        direct_label(axis, x, y, ARMS[key].label, ARMS[key].colour, **beside, **line)


def _mean(pairs: list[list[float]]) -> float:
    return seed_interval(np.array(pairs)).estimate


def equal_terms_table(result: StabilityResult) -> pd.DataFrame:
    """Each primary contrast where both arms reconstruct equally well, and where both have moved equally far."""
    names = {"r2": "at equal R²", "movement": "at equal movement"}
    rows = []
    for key, terms in result.on_equal_terms().items():
        for name, found in terms.items():
            if found is None:
                rows.append([f"{key}, {names.get(name, name)}", None, None, None, None, "an arm was not run"])
                continue
            rows.append(
                [
                    f"{key}, {names.get(name, name)}",
                    found.target,
                    found.first,
                    found.second,
                    signed(found.gain),
                    found.reason or "–",
                ]
            )
    return table(["contrast", "common value", "RA-SAE", "TopK", "gain", "remark"], rows)


def interaction_table(result: StabilityResult) -> pd.DataFrame:
    """The 2 × 2 of start and dictionary with its interaction."""
    rows = []
    for key, found in result.interactions().items():
        label = next(square.label for square in contrasts.SQUARES if square.key == key)
        rows.append(
            [
                f"{label} ({len(found.seeds)} seeds)",
                *(
                    interval(found.cells[start, kind])
                    for kind in (contrasts.FREE, contrasts.RA)
                    for start in (contrasts.OWN, contrasts.SHARED)
                ),
                signed(found.interaction),
            ]
        )
    header = ["frame", "TopK, own start", "TopK, shared start", "RA, own anchors", "RA, shared anchors", "interaction"]
    return table(header, rows)


def between_arms(result: StabilityResult) -> Figure:
    """Agreement between arms: do free and archetypal dictionaries find the same features, or each their own?"""
    figure, axes = panels(len(FRAMES), width=6.6, height=5.6)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms = list(dict.fromkeys(pair.first for pair in result.between if ARMS[pair.first].frame == frame))
        values = np.full((len(arms), len(arms)), np.nan)
        for pair in result.between:
            if pair.first in arms and pair.second in arms:
                values[arms.index(pair.second), arms.index(pair.first)] = pair.score
        heat_map(axis, values, [ARMS[arm].label for arm in arms])
        axis.set_title(FRAME_TITLES[frame])
    return figure


def collapse_table(result: StabilityResult) -> pd.DataFrame:
    """How far atoms of one dictionary have run together, and stability once duplicates count once."""
    rows = []
    for arm in result.arms:
        if len(arm.seeds) < 2 or ARMS[arm.arm].dictionary == "frozen":
            continue
        rows.append(
            [
                ARMS[arm.arm].title,
                arm.collapse.nearest["0.5"],
                arm.collapse.nearest["0.95"],
                arm.collapse.distinct,
                None if arm.effective_anchors is None else round(float(np.mean(arm.effective_anchors))),
                arm.end[HEADLINE].interval().estimate,
                _mean(arm.collapse_corrected),
            ]
        )
    header = ["arm", "nearest neighbour, median cosine", "95 %", "distinct atoms", "effective anchors", "stability"]
    return table([*header, "corrected for collapse"], rows)


def by_metric_table(result: StabilityResult) -> pd.DataFrame:
    """What the rule would say from every other score, less chance. Exploratory."""
    names = next((list(arm.end) for arm in result.arms if arm.end), [])
    rows = []
    for name in names:
        decisions = result.decisions(name)
        rows.append([name, *(f"{signed(one.gain)} · {one.verdict}" for one in decisions)])
    return table(["score", *(f"{one.key}" for one in contrasts.PRIMARY)], rows)


def synthetic_table() -> pd.DataFrame:
    """What the rule says of made-up outcomes: fixed before any data."""
    rows = [[row["case"], row["says"], row["reason"]] for row in contrast_cases.synthetic_table()]
    return table(["made-up outcome", "the rule says", "because"], rows)


def longer_table(result: LongerResult) -> pd.DataFrame | Markdown:
    """The contrasts of g1 and g3 at the end of the longer runs."""
    if not result.arms:
        return Markdown("*No run was trained for longer in this preset (`longer_factor` is 1).*")
    return decisions_table(result)


def longer_figure(result: LongerResult) -> Figure:
    """Stability and reconstruction of the arms of g1 and g3 over tokens."""
    figure, axes = panels(2, width=5.6)
    for arm in result.arms:
        tokens = [at.tokens for at in arm.trajectory]
        colour, style = ARMS[arm.arm].colour, "-" if ARMS[arm.arm].frame == "centred" else "--"
        axes[0].plot(
            tokens, [_mean(at.stability) for at in arm.trajectory], style, color=colour, marker="o", markersize=4
        )
        axes[1].plot(tokens, [np.mean(at.r2) for at in arm.trajectory], style, color=colour, marker="o", markersize=4)
        direct_label(axes[0], tokens[-1], _mean(arm.trajectory[-1].stability), ARMS[arm.arm].title, colour, fontsize=7)
    axes[0].set(xscale="log", xlabel="tokens seen", ylabel="stability between seeds")
    axes[1].set(xscale="log", xlabel="tokens seen", ylabel="R² on held-out text")
    return figure


def generality_table(result: GeneralityResult) -> pd.DataFrame:
    """The contrasts of g1 and g3 at another layer and with another k."""
    rows = []
    for one in result.settings:
        if one.setting.skipped:
            rows.append([one.setting.name, None, None, None, f"left out: {one.setting.skipped}"])
        for decision in one.decisions():
            rows.append(
                [
                    f"{one.setting.name}, {decision.contrast.key}",
                    len(decision.seeds),
                    signed(decision.gain),
                    signed(decision.delta_r2),
                    str(decision.verdict),
                ]
            )
    return table(
        [f"setting, after {result.steps:,} steps", "seeds", "gain in stability", "ΔR²", "the rule would say"], rows
    )


def structure_table(result: StructureResult) -> pd.DataFrame:
    """The paper's structural metrics of the trained dictionaries of notebook 04."""
    names = {
        "ood": "OOD score",
        "stable_rank": "stable rank",
        "effective_rank": "effective rank",
        "coherence": "coherence",
        "connectivity": "connectivity",
        "negative_interference": "negative interference",
    }
    rows = [
        [row.label, *(getattr(row.metrics, name) for name in names)] for row in result.rows if row.when == "trained"
    ]
    return table(["dictionary", *names.values()], rows)


def reappearance_table(result: ReappearanceResult) -> pd.DataFrame:
    """Features that other seeds find again, against features of equal activation mass that they do not."""
    scores = {"auc": "best topic's AUROC", "entropy": "token entropy, bits", "ce": "CE of ablation, nats"}
    rows = [
        [
            row.label,
            row.features,
            percent(row.rate),
            row.matched,
            *(signed(row.scores[name].difference) if name in row.scores else None for name in scores),
        ]
        for row in result.rows
    ]
    return table(
        ["arm", "features", "found again", "matched", *(f"{label}: stable − unstable" for label in scores.values())],
        rows,
    )


def subspaces_table(result: ReappearanceResult) -> pd.DataFrame:
    """How much of one seed's unstable atoms lies in the subspace of another's, beside what that is worth."""
    rows = []
    for row in result.rows:
        found = row.subspace
        shares = (
            [None] * 5
            if found is None
            else [f"{found.unstable:,.0f}", interval(found.other), found.own, found.data, found.chance]
        )
        rows.append([row.label, *shares])
    header = [
        "arm",
        "unstable features",
        "held by another seed's subspace",
        "by the own",
        "by principal components",
        "chance",
    ]
    return table(header, rows)


def swap_table(result: SwapResult) -> pd.DataFrame | Markdown:
    """KL of each replacement as a share of the KL of removing the feature, by the cosine of the match."""
    if result.reason:
        return Markdown(f"*Not testable here: {result.reason}.*")
    names = {"partner": "its match", "second": "the next most similar", "random": "one that fires as often"}
    rows = [[row.label, row.pairs, *(interval(row.share[name]) for name in names)] for row in result.bins]
    return table(["cosine of the match", "features", *names.values()], rows)


def swap_figure(result: SwapResult) -> Figure:
    """By the cosine of the match: how much of the feature's effect its replacement leaves undone."""
    figure, (axis,) = panels(1, width=7.0, height=3.8)
    names = {
        "partner": ("its match", "o"),
        "second": ("the next most similar", "s"),
        "random": ("one that fires as often", "^"),
    }
    for place, (name, (label, shape)) in enumerate(names.items()):
        known = [(i, row.share[name]) for i, row in enumerate(result.bins) if row.share[name] is not None]
        colour = ("#0173b2", "#de8f05", "#7f7f7f")[place]
        for i, share in known:
            axis.errorbar(i + 0.12 * (place - 1), share.estimate, yerr=_ends(share), fmt=shape, color=colour, capsize=3)
        if known:
            i, share = known[-1]
            direct_label(axis, i + 0.12 * (place - 1), share.estimate, label, colour)
    axis.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axis.annotate(
        "as bad as removing it", (-0.4, 1), xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.4"
    )
    axis.set_xticks(range(len(result.bins)), [f"{row.label}\n(n = {row.pairs})" for row in result.bins], fontsize=8)
    axis.set(xlabel="cosine of the match in another seed", ylabel="KL of the swap / KL of removal", ylim=(0, None))
    axis.set_xlim(-0.5, len(result.bins) + 0.4)
    return figure


def _ends(found: Interval) -> list[list[float]] | None:
    if found.low is None:
        return None
    return [[max(0.0, found.estimate - found.low)], [max(0.0, found.high - found.estimate)]]


def advice_table(result: StabilityResult) -> pd.DataFrame:
    """What each start and dictionary buys in stability and costs in reconstruction, against TopK from random starts.

    CE recovered is measured for the arms of the primary contrasts.
    """
    arms, rows = result.by_key(), []
    for frame in FRAMES:
        base = arms.get("topk-random-own" if frame == "centred" else f"{frame}-topk-random-own")
        if base is None or len(base.seeds) < 2:
            continue
        for arm in _of(result, frame):
            if len(arm.seeds) > 1 and arm.arm != base.arm and ARMS[arm.arm].dictionary != "frozen":
                rows.append([ARMS[arm.arm].title, *_against(arm, base)])
    return table(
        ["instead of TopK from random starts", "stability", "ΔR²", "CE recovered", "dead", "shared between runs"], rows
    )


def _against(arm: ArmResult, base: ArmResult) -> list[str]:
    ce = None if arm.ce_recovered is None else float(np.mean(arm.ce_recovered))
    gain = arm.end[HEADLINE].interval().estimate - base.end[HEADLINE].interval().estimate
    shared = "nothing" if ARMS[arm.arm].own else "the start"
    r2 = float(np.mean(arm.r2) - np.mean(base.r2))
    return [signed(gain), signed(r2), cell(ce), percent(float(np.mean(arm.dead_share))), shared]


def advice(result: StabilityResult) -> Markdown:
    """What a practitioner should do, computed from the arms."""
    arms = result.by_key()
    needed = ("topk-random-own", "topk-kmeans-own", "topk-kmeans-shared", "ra-own", "ra-shared")
    missing = [arm for arm in needed if arm not in arms or len(arms[arm].seeds) < 2]
    if missing:
        return Markdown(f"*No advice: not computed for two seeds: {', '.join(missing)}.*")
    scores = {key: arms[key].end[HEADLINE].interval().estimate for key in needed}
    return finding("advice", s=scores, r2={key: float(np.mean(arms[key].r2)) for key in needed})
