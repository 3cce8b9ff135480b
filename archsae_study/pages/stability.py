"""Notebook 05: figures, tables and the finding."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import LEVEL, PRIMARY_LEVEL, seed_interval
from archsae_core.metrics.stability import HEADLINE, SCORES
from archsae_core.text import visible
from archsae_study.experiments.anchor_alignment import Alignment, AlignmentResult
from archsae_study.experiments.controls import SEEDS, ControlResult, ControlsResult
from archsae_study.experiments.dictionaries import BindingResult
from archsae_study.experiments.generality import ALONG, GeneralityResult, SettingResult
from archsae_study.experiments.identifiability import IdentifiabilityResult
from archsae_study.experiments.longer import LongerResult
from archsae_study.experiments.reappearance import ReappearanceResult
from archsae_study.experiments.stability import ArmResult, AtStep, StabilityResult
from archsae_study.experiments.structure import StructureResult
from archsae_study.experiments.swap import SwapResult, SwapRow
from archsae_study.formatting import cell, interval, percent, signed, table
from archsae_study.pages.style import (
    FRAME_TITLES,
    direct_label,
    error_bar,
    finding,
    heat_map,
    label_column,
    marker,
    panels,
    point,
    setting,
)
from archsae_study.protocol import contrast_cases, contrasts
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import Decision
from archsae_study.report import Report

LIVE = "hungarian_centred_alive"
"""The headline score among features that fire: it says what dead features contribute to a verdict."""
COPIES = 0.1
"""Share of atoms that are copies of others, from which a score is also given without them."""
CONTROLS = {
    "rate": "Adam's learning rate raised on both sides; the chosen step's rate for W, and Λ's where capped, stay",
    "anchors": "More anchors",
    "no_data": "Anchors that are no data, against TopK from random starts",
    "start": "One random start for all seeds of TopK, against one of each seed's own",
    "random_w": "Random rows of W in place of the identity, the anchors shared in both",
}
"""Kinds of controls, as they are read."""
FLAGS = {
    "failed": "diverged",
    "l0": "L0 is not k",
    "dead": "most features are dead",
    "r2": "R² is below that of the mean",
    "unmoved": "atoms did not move",
    "constraint": "the constraint is violated",
}
"""Kinds of flags, as they are read."""
REPLACEMENTS = {
    "partner": ("its match", "o", "#000000"),
    "second": ("the next most similar", "s", "#d55e00"),
    "random": ("one that fires as often", "^", "#ca9161"),
}
"""What is put in a feature's place: name, marker, and a colour that no arm has."""
__all__ = [
    "Report",
    "advice",
    "advice_table",
    "alignment",
    "alignment_table",
    "arms_table",
    "between_arms",
    "between_sentence",
    "by_metric_table",
    "collapse_table",
    "conclusion",
    "controls",
    "controls_table",
    "decisions_table",
    "equal_terms_table",
    "gains_figure",
    "generality_figure",
    "generality_table",
    "headline",
    "interaction_table",
    "longer_figure",
    "longer_table",
    "movement",
    "reappearance_sentence",
    "reappearance_table",
    "reasons",
    "setting",
    "stability_figure",
    "structure_table",
    "subspaces_table",
    "swap_figure",
    "swap_sentence",
    "swap_table",
    "synthetic_table",
    "trajectories",
]


def headline(
    result: StabilityResult,
    generality: GeneralityResult,
    binding: BindingResult,
    alignment: AlignmentResult,
    controls: ControlsResult,
) -> Markdown:
    """The finding of notebook 05: what the rule says of the three primary contrasts, and the limits of the run."""
    return finding("stability", beside=beside(result), limit=limit(result, generality, binding, alignment, controls))


def beside(result: StabilityResult) -> dict[str, dict[str, Any]]:
    """By contrast, what a verdict cannot be read without: both arms at equal terms, what moved, L0."""
    terms, arms = result.on_equal_terms(), result.by_key()
    live = {one.contrast.key: one.gain for one in result.decisions(LIVE)} if _scored(result, LIVE) else {}
    found = {}
    for one in result.decisions():
        key, ra = one.contrast.key, arms.get(one.contrast.ra)
        cosine = one.ra_cosine.estimate if one.ra_cosine else None
        found[key] = {
            "decision": one,
            "movement": terms[key]["movement"],
            "r2": terms[key]["r2"],
            "unmoved": cosine is not None and cosine >= contrasts.UNMOVED,
            "live": live.get(key),
            "lower": one.gain is not None and one.gain.below(0.0),
            "dead": None if ra is None else float(np.mean(ra.dead_share)),
            "l0": None if ra is None else float(np.mean(ra.l0)),
            "anchors": None if ra is None or ra.effective_anchors is None else float(np.mean(ra.effective_anchors)),
            "relaxed": None if ra is None or ra.relaxation_share is None else float(np.mean(ra.relaxation_share)),
        }
    return found


def _scored(result: StabilityResult, metric: str) -> bool:
    return all(metric in arm.end for arm in result.arms if len(arm.seeds) > 1)


def limit(
    result: StabilityResult,
    generality: GeneralityResult,
    binding: BindingResult,
    alignment: AlignmentResult,
    controls: ControlsResult,
) -> dict[str, Any]:
    """How far the arms of the contrasts were trained, which atoms stayed, and what was found in other settings."""
    named = dict.fromkeys(arm for one in contrasts.PRIMARY for arm in (one.ra, one.free))
    arms = [arm for key, arm in result.by_key().items() if key in named]
    paths = [arm.trajectory for arm in arms if len(arm.trajectory) > 1] or [arm.trajectory for arm in result.arms]
    last = paths[0][-1]
    rises = {ARMS[arm.arm].title: _rise(arm) for arm in arms if len(arm.trajectory) > 1}
    base = result.by_key().get("topk-random-own")
    paired = base is not None and len(base.seeds) > 1
    repeated = _controls(controls, result)
    elsewhere, yes = _elsewhere(generality, alignment), (contrasts.Verdict.SUPPORTED, contrasts.Verdict.AT_A_COST)
    return {
        "steps": last.step,
        "tokens": last.tokens / 1e6,
        "since": paths[0][-2].step if len(paths[0]) > 1 else 0,
        "compared": bool(rises),
        "rise": max(rises.values(), default=0.0),
        "last_change": _last_change(paths) if rises else None,
        "rising": {name: rise for name, rise in rises.items() if rise > contrasts.COST},
        "cost": contrasts.COST,
        "margin": contrasts.MARGIN,
        "same": _inward(same_verdicts(result.decisions())),
        "elsewhere": elsewhere,
        "controls": repeated,
        "yes_elsewhere": bool(repeated["supported"])
        or any(one.verdict in yes for found in elsewhere for one in found["decisions"]),
        "unmoved": [key for key, one in beside(result).items() if one["unmoved"]],
        "kept": contrasts.UNMOVED,
        "random": base.end[HEADLINE].interval().estimate if paired else None,
        "apart": _apart(result, binding),
        "shorter": _shorter(result, generality, last.step),
        "starts": _starts(result),
    }


def same_verdicts(decisions: Iterable[Decision]) -> dict[str, float] | None:
    """Between which margins of the gain, and which thresholds of the cosine with the start, no verdict would change.

    `above` and `below` bound the margin, `moved` and `kept` the threshold. None where no contrast has an interval.
    """
    above, below, moved, kept = [0.0], [1.0], [0.0], [1.0]
    decided = [one for one in decisions if one.gain is not None and one.ra_cosine is not None]
    for one in decided:
        low, high, verdict = one.gain.low, one.gain.high, one.verdict
        if verdict is contrasts.Verdict.NOT_SUPPORTED:
            above.append(high)
        elif verdict is contrasts.Verdict.UNDETERMINED:
            above.append(low)
            below.append(high)
        else:
            below.append(low)
            (kept if verdict is contrasts.Verdict.FROZEN else moved).append(one.ra_cosine.estimate)
    found = {"above": max(above), "below": min(below), "moved": max(moved), "kept": min(kept)}
    return found if decided else None


def _inward(same: dict[str, float] | None) -> dict[str, float] | None:
    """Bounds rounded to three digits so that they still hold."""
    lower = ("above", "moved")
    return same and {name: (math.ceil if name in lower else math.floor)(1000 * x) / 1000 for name, x in same.items()}


def _apart(result: StabilityResult, binding: BindingResult) -> dict[str, list[str]] | None:
    """Contrasts by what they lack, where none has both a hull that excludes directions and atoms that move."""
    unmoved = [key for key, one in beside(result).items() if one["unmoved"]]
    decided = [one.contrast for one in result.decisions() if one.gain is not None]
    vacuous = [one.key for one in decided if binding.of(ARMS[one.ra].frame).vacuous and one.key not in unmoved]
    if not (unmoved and vacuous) or len(decided) > len(unmoved) + len(vacuous):
        return None
    return {"vacuous": vacuous, "unmoved": unmoved}


def _shorter(result: StabilityResult, generality: GeneralityResult, steps: int) -> list[dict[str, Any]]:
    """Contrasts whose gain after fewer steps, all else equal, is another by more than the margin."""
    ends = {one.contrast.key: one.gain for one in result.decisions() if one.gain is not None}
    return [
        {"steps": one.setting.steps, "seeds": len(decision.seeds), "key": decision.contrast.key, "gain": decision.gain}
        for one in generality.settings
        for decision in one.decisions()
        if one.setting.steps < steps and not one.setting.changes
        if decision.gain is not None and decision.contrast.key in ends
        if abs(decision.gain.estimate - ends[decision.contrast.key].estimate) > contrasts.MARGIN
    ]


def _starts(result: StabilityResult) -> dict[str, float] | None:
    """Agreement of free dictionaries on centred data by what start they have, where random ones of their own ran."""
    arms = {"own": "topk-random-own", "random": "topk-random-shared", "kmeans": "topk-kmeans-shared"}
    run = {name: result.by_key().get(arm) for name, arm in arms.items()}
    found = {name: arm.end[HEADLINE].interval().estimate for name, arm in run.items() if arm and len(arm.seeds) > 1}
    return found if "own" in found and len(found) > 1 else None


def _elsewhere(generality: GeneralityResult, alignment: AlignmentResult) -> list[dict[str, Any]]:
    """What the rule would say at the sizes of `full` and of the second language model, where those were run."""
    leads = {
        "smoothing": "On raw data",
        "n_features": "At the sizes of the full protocol",
        "model": "On a second language model",
    }
    found = []
    for one in generality.settings:
        decisions = [decision for decision in one.decisions() if decision.gain is not None]
        for changed, where in leads.items():
            if changed in one.setting.changes and decisions:
                merged = {decision.contrast.key: decision for decision in one.decisions(merged=True)}
                collapsed = {decision.contrast.key: _collapsed(one, decision) for decision in decisions}
                said = dict(where=where, setting=one.setting, seeds=len(decisions[0].seeds))
                said |= dict(moved=_moved(changed, decisions[0], alignment.spread()))
                found.append(said | dict(decisions=decisions, merged=merged, collapsed=collapsed))
    return found


def _moved(changed: str, decision: Decision, spread: Alignment | None) -> str:
    """Whether atoms left their start, in the setting that is there to let them."""
    if changed != "smoothing" or decision.ra_cosine is None:
        return ""
    kept = decision.ra_cosine.estimate
    moved = "stay at" if kept >= contrasts.UNMOVED else "leave"
    free = f", free ones {cell(decision.free_cosine.estimate)}" if decision.free_cosine else ""
    found = f" Atoms {moved} their start, which is not their centroid (cosine {cell(kept)}{free})."
    if spread is None or len(spread.seeds) < 2:
        return found
    told = _told(spread)
    own, agree, nearest = (cell(told[name]) for name in ("own", "stability", "of_nearest"))
    anchors = f"With their own centroid their centred cosine is {own}; runs agree to {agree}"
    return f"{found} {anchors}, and the anchors nearest to their atoms to {nearest}."


def _collapsed(result: SettingResult, decision: Decision) -> dict[str, float] | None:
    """Where the copies lie, where more than a tenth of the archetypal atoms are copies of others."""
    arm = next(arm for arm in result.arms if arm.arm == decision.contrast.ra)
    share = float(np.mean(arm.distinct))
    if share > 1 - COPIES:
        return None
    along = float(np.mean(arm.along_first))
    return {"distinct": share, "along": along, "variance": arm.first_variance, "copies": COPIES, "beyond": ALONG}


def _last_change(paths: list[list[AtStep]]) -> float | None:
    """Largest change in stability that the last interval between kept steps brought, with its sign."""
    changes = [
        _mean(path[-1].stability) - _mean(path[-2].stability)
        for path in paths
        if len(path) > 1 and len(path[-1].stability) > 1
    ]
    return max(changes, key=abs, default=None)


def _rise(arm: ArmResult) -> float:
    """R² that the last interval between kept steps brought."""
    before, after = arm.trajectory[-2:]
    return float(np.mean(after.r2) - np.mean(before.r2))


def _parametrisation(result: StabilityResult, controls: ControlsResult) -> dict[str, Any] | None:
    """Stability of RA-SAE from random anchors beside that of TopK from random starts, and what it does to R²; the same
    of raw data where that control was run."""
    arms = [result.by_key().get(key) for key in ("ra-random-anchors", "topk-random-own")]
    if any(arm is None or len(arm.seeds) < 2 for arm in arms):
        return None
    scores = dict(zip(("ra", "free"), (arm.end[HEADLINE].interval().estimate for arm in arms), strict=True))
    found = [one.sides(result) for one in controls.of("no_data", result) if one.control.first.frame == "raw"]
    raw = [_mean(side.end.stability) for side in found[0]] if found else None
    return scores | {"r2": float(np.mean(arms[0].r2) - np.mean(arms[1].r2)), "raw": raw}


def conclusion(result: StabilityResult, binding: BindingResult, controls: ControlsResult) -> Markdown:
    """The answer to the notebook's question, from the verdicts and the 2 × 2."""
    decided = {str(verdict): [] for verdict in contrasts.Verdict}
    for one in result.decisions():
        decided[str(one.verdict)].append(one.contrast.key)
    return finding(
        "stability_conclusion",
        decided=decided,
        alone=_parametrisation(result, controls),
        squares=result.interactions(),
        apart=_apart(result, binding),
        beside=beside(result),
    )


def decisions_table(result: StabilityResult | LongerResult) -> pd.DataFrame:
    """One row a primary contrast: the gain, at the end and at equal movement, what it costs, and the verdict."""
    terms = result.on_equal_terms() if isinstance(result, StabilityResult) else {}
    rows = []
    for one in result.decisions():
        equal = terms.get(one.contrast.key, {}).get("movement")
        rows.append(
            [
                f"{one.contrast.key}: {one.contrast.label}",
                len(one.seeds),
                signed(one.gain),
                signed(equal.gain) if equal else None,
                signed(one.delta_r2),
                signed(one.delta_ce_recovered),
                one.ra_cosine.estimate if one.ra_cosine else None,
                one.free_cosine.estimate if one.free_cosine else None,
                f"{one.verdict}",
            ]
        )
    header = ["contrast", "seeds", "gain in stability", "gain at equal movement", "ΔR²", "ΔCE recovered"]
    caption = (
        f"Archetypal less free. Intervals: {PRIMARY_LEVEL:.1%}; at equal movement, which does not decide, {LEVEL:.0%}."
    )
    return table([*header, "RA cosine with start", "TopK cosine with start", "verdict"], rows, caption)


def reasons(result: StabilityResult) -> Markdown:
    """Why the rule says so, one line a contrast, with what the rule prints but does not decide by."""
    notes = beside(result)
    shares = {
        one.contrast.key: one.share.reason if one.share.interval is None else percent(one.share.interval.estimate, 0)
        for one in result.decisions()
    }
    return finding("stability_reasons", beside=notes, shares=shares)


def arms_table(result: StabilityResult, frame: str) -> pd.DataFrame:
    """One row an arm of a frame: reconstruction, stability before and after training, movement."""
    rows = []
    for arm in _of(result, frame):
        end = arm.end[HEADLINE] if len(arm.seeds) > 1 else None
        rows.append(
            [
                ARMS[arm.arm].label,
                len(arm.seeds),
                float(np.mean(arm.r2)),
                float(np.mean(arm.mse)),
                float(np.mean(arm.l0)),
                percent(float(np.mean(arm.dead_share))),
                None if end is None else _mean(arm.trajectory[0].stability),
                None if end is None else end.interval(normalised=False).estimate,
                None if end is None else end.chance,
                None if end is None else interval(end.interval()),
                float(np.mean(arm.cosine_with_start)),
            ]
        )
    header = ["arm", "seeds", "R²", "MSE", "L0", "dead", "S at step 0", "s", "s₀", "S at the end", "cosine with start"]
    caption = (
        f"{FRAME_TITLES[frame]}. MSE: a dimension, in the model's units. s: cosine of matched atoms; s₀: that of "
        f"unrelated dictionaries; S = (s − s₀) / (1 − s₀), {LEVEL:.0%} over seeds, ends cut at 1."
    )
    return table(header, rows, caption)


def _of(result: StabilityResult, frame: str) -> list[ArmResult]:
    return [arm for arm in result.arms if ARMS[arm.arm].frame == frame]


def stability_figure(result: StabilityResult) -> Figure:
    """Stability of every arm from step 0 to the end, with R², MSE and intervals over seeds, one panel a frame."""
    rows = max(len(_of(result, frame)) for frame in FRAMES)
    figure, axes = panels(len(FRAMES), width=7.2, height=0.62 * rows + 1.6, sharex=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms = [arm for arm in _of(result, frame) if len(arm.seeds) > 1][::-1]
        for place, arm in enumerate(arms):
            colour = ARMS[arm.arm].colour
            start = _mean(arm.trajectory[0].stability)
            end = arm.end[HEADLINE].interval()
            axis.plot([start, end.estimate], [place, place], color=colour, alpha=0.4, linewidth=3, zorder=1)
            axis.plot(start, place, "|", color=colour, markersize=18, markeredgewidth=2)
            point(axis, end.estimate, place, end, **marker(arm.arm))
        labels = [f"{ARMS[arm.arm].label}\nR² {np.mean(arm.r2):.3f}, MSE {np.mean(arm.mse):,.1f}" for arm in arms]
        axis.set_yticks(range(len(arms)), labels, fontsize=8)
        axis.set(ylim=(-0.6, len(arms) - 0.4), xlim=(-0.05, 1.05))
        axis.set(
            xlabel="stability between seeds (0 chance, 1 identity)\n"
            f"| before training   ● after, own start   ○ after, shared start   bars: {LEVEL:.0%} over seeds"
        )
        axis.set_title(FRAME_TITLES[frame])
        axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    return figure


def gains_figure(result: StabilityResult) -> Figure:
    """The primary contrasts beside the margin of the rule: at the end of training, and at equal movement."""
    decisions = [one for one in result.decisions() if one.gain is not None]
    terms = result.on_equal_terms()
    figure, (axis,) = panels(1, width=8.8, height=0.85 * max(len(decisions), 1) + 1.5)
    for place, one in enumerate(reversed(decisions)):
        colour = ARMS[one.contrast.ra].colour
        point(axis, one.gain.estimate, place, one.gain, color=colour)
        direct_label(axis, 1, place, f"{one.verdict}", colour, xycoords=("axes fraction", "data"))
        equal = terms[one.contrast.key]["movement"]
        if equal is not None and equal.gain is not None:
            under = place - 0.28
            point(axis, equal.gain.estimate, under, equal.gain, shape="d", color="0.35", size=5)
    axis.axvline(0, color="0.7", linewidth=0.8)
    axis.axvline(contrasts.MARGIN, color="0.3", linewidth=1, linestyle="--")
    beyond = dict(xycoords=("data", "axes fraction"), fontsize=8, ha="center", va="bottom")
    axis.annotate(f"margin {contrasts.MARGIN}", (contrasts.MARGIN, 1.0), **beyond)
    axis.set_yticks(range(len(decisions)), [_wrapped(one) for one in reversed(decisions)], fontsize=8)
    axis.set(
        ylim=(-0.6, len(decisions) - 0.3),
        xlabel="gain in stability of RA-SAE over TopK, starts of each seed's own\n"
        f"● end of training, {PRIMARY_LEVEL:.1%} over seeds (decides)   ◆ at equal movement, {LEVEL:.0%}\n"
        "blue: the chosen step for W   pink: the published one",
    )
    return figure


def _wrapped(one: Decision) -> str:
    return f"{one.contrast.key}: {one.contrast.label}".replace(" − ", "\n− ")


def movement(result: StabilityResult) -> Figure:
    """Stability against movement: do seeds agree because they learned the same, or because they never moved?"""
    return _paths(
        result,
        lambda at: 1 - np.mean(at.cosine_with_start),
        {"alpha": 0.6, "marker": "o"},
        xlabel="movement: 1 − mean cosine with the own start",
    )


def trajectories(result: StabilityResult) -> Figure:
    """Stability against reconstruction along training: one path an arm, the large dot its end."""
    return _paths(
        result,
        lambda at: np.mean(at.r2) if np.mean(at.r2) > 0 else None,
        {"alpha": 0.6, "marker": "o"},
        xlabel="R² on held-out text (steps with R² below 0 are left out)",
    )


def _paths(
    result: StabilityResult, along: Callable[[Any], float | None], line: Mapping[str, Any], **axes_options: Any
) -> Figure:
    """Stability along training of every arm with two seeds, one path an arm; where `along` is None, no point.

    A small dot is a step that was kept, a large one the last, with its interval over seeds where there are three.
    """
    figure, axes = panels(len(FRAMES), width=7.0, height=4.6, sharey=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        ends: list[tuple[str, str, float, float]] = []
        arms = [arm for arm in _of(result, frame) if len(arm.seeds) > 1]
        starts = [(ARMS[arm.arm].start, ARMS[arm.arm].anchors, ARMS[arm.arm].own) for arm in arms]
        for place, arm in enumerate(arms):
            shown = [(x, at) for at in arm.trajectory if (x := along(at)) is not None]
            if not shown:
                continue
            path = [(x, _mean(at.stability)) for x, at in shown]
            # arms of one start lie on each other: the first is the widest
            width = 1 + 1.2 * starts[place + 1 :].count(starts[place])
            style = dict(color=ARMS[arm.arm].colour, linewidth=width, markersize=width + 1.5)
            axis.plot(*zip(*path, strict=True), **style, **line)
            found = seed_interval(np.array(shown[-1][1].stability))
            axis.errorbar(*path[-1], yerr=error_bar(found), fmt="none", ecolor=ARMS[arm.arm].colour, capsize=4)
            axis.plot(*path[-1], "o", markersize=9, zorder=3, **marker(arm.arm))
            ends.append((ARMS[arm.arm].label, ARMS[arm.arm].colour, *path[-1]))
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set(ylabel=f"stability between seeds (bar: {LEVEL:.0%})", ylim=(-0.05, 1.08), **axes_options)
        axis.set_title(FRAME_TITLES[frame])
        label_column(axis, ends)
    return figure


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
                    found.reason.replace(" -", " −") or "both reach it",
                ]
            )
    caption = (
        "Stability read off along training where both arms have the same R², or the same 1 − cosine with their start. "
        f"Exploratory; {LEVEL:.0%} over seeds."
    )
    return table(["contrast", "common value", "RA-SAE", "TopK", "gain", "remark"], rows, caption)


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
    caption = (
        f"Stability, {LEVEL:.0%} over seeds given the one shared start. Interaction: what a shared start brings to "
        "RA-SAE less what it brings to TopK. No score exceeds 1, so that two shared cells near 1 leave it no room."
    )
    return table(header, rows, caption)


def between_arms(result: StabilityResult) -> Figure:
    """Agreement between arms: do free and archetypal dictionaries find the same features, or each their own?"""
    figure, axes = panels(len(FRAMES), width=6.8, height=5.6)
    for axis, frame in zip(axes, FRAMES, strict=True):
        arms = list(dict.fromkeys(pair.first for pair in result.between if ARMS[pair.first].frame == frame))
        values = np.full((len(arms), len(arms)), np.nan)
        texts = np.full(values.shape, "", dtype=object)
        for pair in result.between:
            if pair.first in arms and pair.second in arms:
                place = arms.index(pair.second), arms.index(pair.first)
                values[place] = pair.score
                score = f"{pair.score:z.2f}".replace("0.", ".", 1).replace("-", "−")
                texts[place] = score if pair.score < 0.995 else "1"
                if _share(pair.first, pair.second):
                    frame_of = dict(fill=False, edgecolor="black", linewidth=1.6, zorder=3)
                    axis.add_patch(Rectangle((place[1] + 0.06, place[0] + 0.06), 0.88, 0.88, **frame_of))
        bar = {"label": "stability score S", "shrink": 0.6}
        options = dict(annot=texts, fmt="", cbar=frame == FRAMES[-1], cbar_kws=bar)
        heat_map(axis, values, [ARMS[arm].label for arm in arms], **options)
        axis.set_title(f"{FRAME_TITLES[frame]}\nseed 0 of the column's arm with seed 1 of the row's")
        axis.set_xlabel("framed: the two runs share their start or their centroids")
    return figure


def _share(first: str, second: str) -> bool:
    """Whether seed 0 of the first arm and seed 1 of the second have their start or their centroids in common."""
    if (first, second) == ("topk-random-own", "topk-random-shared"):  # all of this arm start as seed 0 of that one
        return True
    return not (ARMS[first].own or ARMS[second].own) and ARMS[first].anchors == ARMS[second].anchors


def between_sentence(result: StabilityResult) -> Markdown:
    """Whether free and archetypal dictionaries of different runs agree as much as two runs of one kind."""
    scores = {(pair.first, pair.second): pair.score for pair in result.between}
    frames = []
    for one in contrasts.PRIMARY:
        both = scores.get((one.free, one.ra), scores.get((one.ra, one.free)))
        same = {"TopK": scores.get((one.free, one.free)), "RA-SAE": scores.get((one.ra, one.ra))}
        if both is not None and None not in same.values():
            frames.append({"label": one.label.split(" − ")[0], "both": both, "same": same})
    return finding("between_arms", frames=frames, margin=contrasts.MARGIN)


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
                None if arm.relaxation_share is None else percent(float(np.mean(arm.relaxation_share)), 0),
                arm.end[HEADLINE].interval().estimate,
                _mean(arm.collapse_corrected),
            ]
        )
    header = ["arm", "nearest neighbour, median cosine", "95 %", "distinct atoms", "effective anchors"]
    header += ["share of Λ", "stability"]
    caption = (
        "Atoms of seed 0, and stability once atoms with a cosine above 0.99 count once. Share of Λ: "
        "‖Λ_i‖ / (‖W_i C‖ + ‖Λ_i‖), median over atoms; from 50 % on Λ alone can turn it anywhere. A dash: it has no W."
    )
    return table([*header, "corrected for collapse"], rows, caption)


def by_metric_table(result: StabilityResult) -> pd.DataFrame:
    """What the rule would say from every other score, less chance, and how many say what. Exploratory."""
    known = next((list(arm.end) for arm in result.arms if arm.end), [])
    names = [name for name in SCORES if name in known]
    rows, said = [], {one.key: [] for one in contrasts.PRIMARY}
    for name in names:
        decisions = result.decisions(name)
        for one in decisions:
            said[one.contrast.key].append(str(one.verdict))
        rows.append(
            [
                f"{SCORES[name]}{' (decides)' * (name == HEADLINE)}",
                *(f"{signed(one.gain)} · {one.verdict}" for one in decisions),
            ]
        )
    rows.append([f"of {len(names)} scores", *("; ".join(_counted(found)) for found in said.values())])
    caption = (
        f"Every score under the rule, each less its chance level, {PRIMARY_LEVEL:.1%}. Several atoms may have the same "
        "best partner. Scores of features that fire match the smaller set of these into the larger"
    )
    return table(["score", *said], rows, caption)


def _counted(verdicts: Sequence[str]) -> list[str]:
    return [f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common()]


def synthetic_table() -> pd.DataFrame:
    """What the rule says of made-up outcomes: fixed before any data."""
    rows = [[row["case"], row["says"], row["reason"]] for row in contrast_cases.synthetic_table()]
    caption = "What the rule says of made-up outcomes"
    return table(["made-up outcome", "the rule says", "because"], rows, caption)


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


def generality_figure(result: GeneralityResult) -> Figure:
    """The contrasts in other settings beside the margin of the rule, with every atom and with copies merged."""
    found = [
        (f"{_plain(one.setting.name)}, {one.setting.steps:,} steps, {all_atoms.contrast.key}", all_atoms, merged)
        for one in result.settings
        for all_atoms, merged in zip(one.decisions(), one.decisions(merged=True), strict=True)
        if all_atoms.gain is not None
    ]
    figure, (axis,) = panels(1, width=8.8, height=0.36 * max(len(found), 1) + 1.4)
    for place, (_, all_atoms, merged) in enumerate(reversed(found)):
        colour = ARMS[all_atoms.contrast.ra].colour
        point(axis, all_atoms.gain.estimate, place, all_atoms.gain, color=colour)
        point(axis, merged.gain.estimate, place - 0.28, merged.gain, shape="d", color="0.35", size=5)
    axis.axvline(0, color="0.7", linewidth=0.8)
    axis.axvline(contrasts.MARGIN, color="0.3", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(found)), [name for name, *_ in reversed(found)], fontsize=8)
    axis.set(
        ylim=(-0.7, len(found) - 0.3),
        xlabel=f"gain in stability of RA-SAE over TopK, {PRIMARY_LEVEL:.1%} over seeds\n"
        f"● all atoms   ◆ copies merged   dashed: the margin of {contrasts.MARGIN}",
    )
    return figure


def _plain(name: str) -> str:
    """A user's name for a figure, in which nothing is taken for a formula."""
    return visible(name).replace("$", r"\$")


def generality_table(result: GeneralityResult) -> pd.DataFrame:
    """The contrasts in other settings, as far as their arms were run there."""
    rows = []
    for one in result.settings:
        merged = {decision.contrast.key: decision.gain for decision in one.decisions(merged=True)}
        distinct = {arm.arm: float(np.mean(arm.distinct)) for arm in one.arms}
        for decision in one.decisions():
            rows.append(
                [
                    f"{one.setting.name}, {decision.contrast.key}",
                    one.setting.steps,
                    len(decision.seeds),
                    signed(decision.gain),
                    percent(distinct[decision.contrast.ra], 0),
                    signed(merged[decision.contrast.key]),
                    signed(decision.delta_r2),
                    decision.ra_cosine.estimate if decision.ra_cosine else None,
                    decision.free_cosine.estimate if decision.free_cosine else None,
                    str(decision.verdict),
                ]
            )
    header = ["setting", "steps", "seeds", "gain in stability", "distinct RA atoms", "gain, copies merged", "ΔR²"]
    header += ["RA cosine with start", "TopK cosine with start"]
    caption = (
        f"The contrasts in other settings, {PRIMARY_LEVEL:.1%} over seeds. Exploratory. Copies are atoms of a "
        "dictionary with a centred cosine above 0.99: many copies of few features agree by number."
        + "".join(
            f" Left out: {one.setting.name}, {one.setting.skipped}." for one in result.settings if one.setting.skipped
        )
    )
    return table([*header, "the rule would say"], rows, caption)


def alignment(result: AlignmentResult) -> Markdown:
    """Whether atoms with W spread over the anchors end at an anchor, beside free atoms."""
    spread = result.spread()
    free = next((arm for arm in result.arms if ARMS[arm.arm].dictionary == "free"), None)
    told = {"spread": spread and _told(spread), "free": free and _told(free)}
    return finding("anchor_alignment", kept=contrasts.UNMOVED, margin=contrasts.MARGIN, **told)


def _told(arm: Alignment) -> dict[str, float | None]:
    """Means over the seeds of an arm."""
    paired = len(arm.seeds) > 1
    return {
        "before": float(np.mean(arm.own_anchor_before)),
        "own": float(np.mean(arm.own_anchor)),
        "nearest": float(np.mean(arm.nearest_anchor)),
        "stability": _mean(arm.stability) if paired else None,
        "of_nearest": _mean(arm.stability_of_nearest) if paired else None,
    }


def alignment_table(result: AlignmentResult) -> pd.DataFrame:
    """Where the atoms of each arm end: at their start, at the anchor they started from, at another one."""
    rows = []
    for arm in result.arms:
        told = _told(arm)
        starts = [float(np.mean(arm.cosine_with_start)), float(np.mean(arm.centred_with_start))]
        rows.append([arm.title, len(arm.seeds), *starts, *told.values()])
    header = ["arm", "seeds", "cosine with start", "centred", "with own anchor, step 0", "with own anchor, end"]
    caption = (
        "Means over atoms and seeds. Centred: unit rows less their dictionary's mean, as stability has it. Own anchor: "
        "that nearest at step 0. The last column replaces every atom by the anchor nearest to it."
    )
    return table([*header, "with nearest anchor, end", "S", "S of nearest anchors"], rows, caption)


def controls(result: ControlsResult, study: StabilityResult) -> Markdown:
    """In which controls the rule would say other than of the contrast itself, and what the others show."""
    kinds = Counter(FLAGS[flag.kind] for run in result.checks.flagged for flag in run.flags)
    return finding("controls", leads=CONTROLS, checks=result.checks, kinds=kinds, **_controls(result, study))


def _controls(result: ControlsResult, study: StabilityResult) -> dict[str, Any]:
    """By kind every control that has an interval, with its decision and both sides; of those that repeat a contrast the
    least and the largest gain, and which the rule would call supported."""
    told = {
        kind: [
            {"control": one.control, "decision": one.decision(study), "sides": _ends(one, study)}
            for one in result.of(kind, study)
        ]
        for kind in CONTROLS
    }
    repeated = [found for of_kind in told.values() for found in of_kind if found["control"].contrast]
    yes = (contrasts.Verdict.SUPPORTED, contrasts.Verdict.AT_A_COST)
    return {
        "told": told,
        "own": {one.contrast.key: one.verdict for one in study.decisions()},
        "repeated": repeated,
        "gains": sorted(found["decision"].gain.estimate for found in repeated),
        "supported": [found["control"].name for found in repeated if found["decision"].verdict in yes],
    }


def _ends(one: ControlResult, study: StabilityResult) -> list[dict[str, float]]:
    """Of both sides: stability before and after training, mean cosine of the atoms with their start."""
    return [
        {
            "start": _mean(side.start),
            "end": _mean(side.end.stability),
            "kept": float(np.mean(side.end.cosine_with_start)),
        }
        for side in one.sides(study)
    ]


def controls_table(result: ControlsResult, study: StabilityResult) -> pd.DataFrame:
    """Both sides of every control that was run, and the reason of one that was not."""
    rows = []
    for one in result.controls:
        control, decision = one.control, one.decision(study)
        against = ARMS[control.second.arm].label
        if decision is None:
            reason = control.skipped or "an arm was not run"
            rows.append([control.name, against, *[None] * 7, f"left out: {reason}"])
            continue
        sides = _ends(one, study)
        rows.append(
            [
                control.name,
                against,
                *(f"{cell(side['start'])} → {cell(side['end'])}" for side in sides),
                signed(decision.gain),
                signed(one.decision(study, merged=True).gain),
                signed(decision.delta_r2),
                *(side["kept"] for side in sides),
                str(decision.verdict) if control.contrast else None,
            ]
        )
    header = ["control", "against", "S, start → end", "of the other", "gain in stability"]
    header += ["gain, copies merged", "ΔR²", "cosine with start", "cosine of the other", "the rule would say"]
    caption = (
        f"Controls: gains over the seeds that both sides have, {SEEDS} at most, {PRIMARY_LEVEL:.1%} in every row; S "
        "and cosines over all seeds of a side. Exploratory."
    )
    return table(header, rows, caption)


def structure_table(result: StructureResult) -> pd.DataFrame:
    """The paper's structural metrics of the trained dictionaries of notebook 04."""
    names = {
        "ood": "OOD score ↓",
        "stable_rank": "stable rank",
        "effective_rank": "effective rank",
        "coherence": "coherence ↓",
        "connectivity": "pairs that never fire together",
        "negative_interference": "negative interference ↓",
    }
    rows = [
        [row.label, *(getattr(row.metrics, name) for name in names)] for row in result.rows if row.when == "trained"
    ]
    caption = (
        "The structural metrics of Fel et al., of the one seed of notebook 04 (shared anchors). OOD score: how far "
        "atoms point away from every activation. ↓: lower is better; without an arrow neither side is."
    )
    return table(["dictionary", *names.values()], rows, caption)


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
    caption = (
        f"Found again: share of the other seeds whose matched atom has a cosine above {result.threshold:g}; stable: in "
        "at least half of them. Stable and unstable features are compared at equal activation mass, 95 % over features "
        "or documents. A dash: fewer than 8 of one kind, so that there is nothing to compare."
    )
    return table(
        ["arm", "features", "found again", "matched", *(f"{label}: stable − unstable" for label in scores.values())],
        rows,
        caption,
    )


def reappearance_sentence(result: ReappearanceResult) -> Markdown:
    """In how many arms features that come back tell a topic better than equally heavy ones that do not."""
    found = [row.scores["auc"].difference for row in result.rows if "auc" in row.scores]
    counts = {"better": sum(one.above(0.0) for one in found), "worse": sum(one.below(0.0) for one in found)}
    return finding("reappearance", arms=len(found), counts=counts)


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
    header = ["arm", "unstable features", "held by another seed's subspace", "by the own", "by principal components"]
    caption = (
        "Share of one seed's unstable atoms, by squared norm, in a subspace. A seed's own: the fewest directions that "
        "hold half of them; the others have as many directions. Only what lies above the principal components of the "
        "activations is found again rather than shared by all that fits this text. A dash: too few unstable features. "
        "95 % over seeds."
    )
    return table([*header, "chance"], rows, caption)


def swap_table(result: SwapResult) -> pd.DataFrame | Markdown:
    """KL of each replacement as a share of the KL of removing the feature, by the cosine of the match."""
    if result.reason:
        return Markdown(f"*Not testable here: {result.reason}.*")
    rows = [
        [_bin(row), row.pairs, *(interval(row.share[name]) for name in REPLACEMENTS)]
        for row in [*result.bins, *result.arms]
    ]
    caption = (
        "KL of the swap as a share of the KL of removing the feature: pairs of all arms by cosine, then by arm. 95 %."
    )
    header = ["cosine of the match, or arm", "features", *(label for label, *_ in REPLACEMENTS.values())]
    return table(header, rows, caption)


def _bin(row: SwapRow) -> str:
    """Label of a row; the lowest bin holds negative cosines too."""
    return row.label if row.low is None or row.low >= 0 else f"below {row.high:g}"


def swap_sentence(result: SwapResult) -> Markdown:
    """Whether a match does the work of the feature."""
    known = [row for row in result.bins if row.share["partner"] is not None]
    return finding("swap", reason=result.reason, bins=known, arms=[row.label for row in result.arms])


def swap_figure(result: SwapResult) -> Figure:
    """By the cosine of the match: how much of the feature's effect its replacement leaves undone."""
    figure, (axis,) = panels(1, width=8.4, height=4.0)
    positive = True
    for place, (name, (label, shape, colour)) in enumerate(REPLACEMENTS.items()):
        known = [(i, row.share[name]) for i, row in enumerate(result.bins) if row.share[name] is not None]
        for i, share in known:
            style = dict(fmt=shape, color=colour, capsize=3, label=label if i == known[0][0] else None)
            axis.errorbar(i + 0.15 * (place - 1), share.estimate, yerr=error_bar(share), **style)
            positive &= (share.estimate if share.low is None else share.low) > 0
    axis.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    direct_label(axis, 1, 1, "1: as bad as removing it", "0.4", xycoords=("axes fraction", "data"))
    axis.set_xticks(range(len(result.bins)), [f"{_bin(row)}\n(n = {row.pairs})" for row in result.bins], fontsize=8)
    axis.set(xlabel="cosine of the match in another seed, pairs of all arms", ylabel="KL of the swap / KL of removal")
    if result.bins:
        axis.legend(title="put in the feature's place (bars: 95 % over features)", fontsize=8, title_fontsize=8,
                    loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)  # fmt: skip
        if positive:
            axis.set_ylabel("KL of the swap / KL of removal (logarithmic)")
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlim(-0.5, max(len(result.bins), 1) - 0.5)
    return figure


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
                still = float(np.mean(arm.cosine_with_start)) >= contrasts.UNMOVED
                rows.append([f"{ARMS[arm.arm].title}{' (atoms did not move)' * still}", *_against(arm, base)])
    caption = (
        "Differences to TopK from a random start of each seed's own, in the same frame; CE recovered is no difference, "
        "and measured only for the arms of the contrasts (a dash elsewhere)."
    )
    header = ["instead of TopK from random starts", "gain in stability", "ΔR²", "CE recovered (absolute)", "dead"]
    return table([*header, "shared between runs"], rows, caption)


def _against(arm: ArmResult, base: ArmResult) -> list[str]:
    ce = None if arm.ce_recovered is None else float(np.mean(arm.ce_recovered))
    gain = arm.end[HEADLINE].interval().estimate - base.end[HEADLINE].interval().estimate
    kind = "the anchors" if ARMS[arm.arm].start == "random-w" else "the start"
    shared = "the text" if ARMS[arm.arm].own else f"the text and {kind}"
    r2 = float(np.mean(arm.r2) - np.mean(base.r2))
    return [signed(gain), signed(r2), cell(ce), percent(float(np.mean(arm.dead_share))), shared]


def advice(result: StabilityResult, planted: IdentifiabilityResult) -> Markdown:
    """What a practitioner should do, from the arms, and what planted dictionaries say against it."""
    arms = result.by_key()
    needed = ("topk-random-own", "topk-kmeans-own", "topk-kmeans-shared", "ra-own", "ra-shared")
    missing = [arm for arm in needed if arm not in arms or len(arms[arm].seeds) < 2]
    if missing:
        return Markdown(f"*No advice: not computed for two seeds: {', '.join(missing)}.*")
    known = [key for key in (*needed, "topk-random-shared") if key in arms and len(arms[key].seeds) > 1]
    scores = {key: arms[key].end[HEADLINE].interval().estimate for key in known}
    g1 = next(one for one in result.decisions() if one.contrast.ra == "ra-own")
    cases = [planted.of(key) for key in ("outside", "centred")]
    return finding(
        "advice",
        s=scores,
        r2={key: float(np.mean(arms[key].r2)) for key in needed},
        verdict=str(g1.verdict),
        margin=contrasts.MARGIN,
        steps=arms["topk-random-own"].trajectory[-1].step,
        planted={case.label.partition(":")[0]: {row.label: row.share for row in case.rows} for case in cases},
    )
