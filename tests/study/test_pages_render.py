"""Every function of every page renders: from the smoke report's results, and in all branches of its sentences."""

import importlib
import inspect
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.stability import HEADLINE
from archsae_study.experiments.ablation import AblationResult, Sweep
from archsae_study.experiments.anchor_alignment import Alignment, AlignmentResult
from archsae_study.experiments.checks import CheckedRun, ChecksResult, Flag
from archsae_study.experiments.controls import Control, ControlResult, ControlsResult, Side, SideResult
from archsae_study.experiments.generality import GeneralityResult, SettingResult
from archsae_study.experiments.longer import LongerResult
from archsae_study.experiments.reappearance import ReappearanceResult
from archsae_study.experiments.stability import AtStep, Score, StabilityResult
from archsae_study.experiments.swap import SwapResult
from archsae_study.pages import (
    anchors,
    answer,
    archetypal_sae,
    delta_ablation,
    evaluation,
    features,
    stability,
    standard_sae,
    style,
)
from archsae_study.pages.claims import claims_table
from archsae_study.pages.style import finding
from archsae_study.report import Report
from archsae_study.settings.config import configure

SMOKE = configure({"preset": "smoke"})
K = SMOKE["k"]
ROWS = 12
"""Of a table in the running text, at most."""


@pytest.fixture(scope="module")
def report(smoke_runs):
    return Report(SMOKE, smoke_runs)


def both(table):
    """Standard and archetypal dictionary by the names that notebook 03 gives them."""
    names = {"RA-SAE": "archetypal_sae", "TopK, same start": "kmeans_sae", "TopK, random start": "standard_sae"}
    return {label: table(name) for label, name in names.items()}


SHOWN = {
    "anchors": {
        "headline": lambda t: anchors.headline(t("activations"), t("anchors")),
        "conclusion": lambda t: anchors.conclusion(t("anchors")),
        "copies_table": lambda t: anchors.copies_table(t("activations")),
        "norms_table": lambda t: anchors.norms_table(t("activations")),
        "norms": lambda t: anchors.norms(t("activations")),
        "occupancy": lambda t: anchors.occupancy(t("anchors")),
        "parts_table": lambda t: anchors.parts_table(t("anchor_parts")),
        "found_again": lambda t: anchors.found_again(t("anchors")),
        "hull_table": lambda t: anchors.hull_table(t("anchors")),
        "setting": lambda _: anchors.setting(SMOKE),
    },
    "standard_sae": {
        "headline": lambda t: standard_sae.headline(t("standard_sae")),
        "conclusion": lambda t: standard_sae.conclusion(t("standard_sae")),
        "curves": lambda t: standard_sae.curves({"TopK, random start": t("standard_sae")}),
        "quality_table": lambda t: standard_sae.quality_table({"TopK, random start": t("standard_sae")}),
        "log_table": lambda t: standard_sae.log_table(t("standard_sae")),
        "setting": lambda _: standard_sae.setting(SMOKE),
    },
    "archetypal_sae": {
        "headline": lambda t: archetypal_sae.headline(
            t("archetypal_sae"), t("standard_sae"), t("kmeans_sae"), t("binding")
        ),
        "conclusion": lambda t: archetypal_sae.conclusion(t("archetypal_sae"), t("binding"), SMOKE),
        "curves": lambda t: archetypal_sae.curves(both(t)),
        "quality_table": lambda t: archetypal_sae.quality_table(both(t)),
        "log_table": lambda t: archetypal_sae.log_table(t("archetypal_sae")),
        "binding_figure": lambda t: archetypal_sae.binding_figure(t("binding")),
        "binding_table": lambda t: archetypal_sae.binding_table(t("binding")),
        "w_steps_figure": lambda t: archetypal_sae.w_steps_figure(t("w_steps")),
        "w_steps_sentence": lambda t: archetypal_sae.w_steps_sentence(t("w_steps")),
        "w_steps_table": lambda t: archetypal_sae.w_steps_table(t("w_steps"), "raw"),
        "constraint": lambda t: archetypal_sae.constraint(t("archetypal_sae"), t("kmeans_sae")),
        "setting": lambda _: archetypal_sae.setting(SMOKE),
    },
    "evaluation": {
        "headline": lambda t: evaluation.headline(t("evaluation")),
        "conclusion": lambda t: evaluation.conclusion(t("evaluation")),
        "scores": lambda t: evaluation.scores(t("evaluation")),
        "scores_table": lambda t: evaluation.scores_table(t("evaluation"), "raw"),
        "density": lambda t: evaluation.density(t("evaluation")),
        "baselines": lambda t: evaluation.baselines(t("evaluation")),
        "flagged": lambda t: evaluation.flagged(t("evaluation"), K),
        "setting": lambda _: evaluation.setting(SMOKE),
    },
    "stability": {
        name: (lambda t, name=name: getattr(stability, name)(t("stability")))
        for name in (
            "advice_table", "between_arms", "between_sentence", "by_metric_table", "collapse_table", "decisions_table",
            "equal_terms_table", "gains_figure", "interaction_table", "movement", "reasons", "stability_figure",
            "trajectories",
        )
    } | {
        "headline": lambda t: stability.headline(t("stability"), elsewhere(t), *map(t, ANSWER[3:-1])),
        "conclusion": lambda t: stability.conclusion(t("stability"), t("binding"), t("controls")),
        "advice": lambda t: stability.advice(t("stability"), t("identifiability")),
        "alignment": lambda t: stability.alignment(t("anchor_alignment")),
        "alignment_table": lambda t: stability.alignment_table(t("anchor_alignment")),
        "arms_table": lambda t: stability.arms_table(t("stability"), "raw"),
        "controls": lambda t: stability.controls(t("controls"), t("stability")),
        "controls_table": lambda t: stability.controls_table(t("controls"), t("stability")),
        "generality_figure": lambda t: stability.generality_figure(elsewhere(t)),
        "generality_table": lambda t: stability.generality_table(elsewhere(t)),
        "longer_figure": lambda t: stability.longer_figure(t("longer")),
        "longer_table": lambda t: stability.longer_table(t("longer")),
        "reappearance_sentence": lambda t: stability.reappearance_sentence(t("reappearance")),
        "reappearance_table": lambda t: stability.reappearance_table(t("reappearance")),
        "subspaces_table": lambda t: stability.subspaces_table(t("reappearance")),
        "structure_table": lambda t: stability.structure_table(t("structure")),
        "swap_sentence": lambda t: stability.swap_sentence(t("swap")),
        "swap_figure": lambda t: stability.swap_figure(t("swap")),
        "swap_table": lambda t: stability.swap_table(t("swap")),
        "synthetic_table": lambda _: stability.synthetic_table(),
        "setting": lambda _: stability.setting(SMOKE),
    },
    "delta_ablation": {
        "headline": lambda t: delta_ablation.headline(t("ablation")),
        "conclusion": lambda t: delta_ablation.conclusion(t("ablation")),
        "pareto": lambda t: delta_ablation.pareto(t("ablation")),
        "radii_table": lambda t: delta_ablation.radii_table(t("ablation"), "centred"),
        "checks_table": lambda t: delta_ablation.checks_table(t("checks")),
        "identifiability_figure": lambda t: delta_ablation.identifiability_figure(t("identifiability")),
        "identifiability_table": lambda t: delta_ablation.identifiability_table(t("identifiability")),
        "setting": lambda _: delta_ablation.setting(SMOKE),
    },
    "features": {
        name: (lambda t, name=name: getattr(features, name)(t("features")))
        for name in (
            "anchors_table", "contexts_table", "gallery", "headline", "inspected", "logits_table",
            "matches_table", "overview_table", "profile",
        )
    } | {
        "answer": lambda t: features.answer(*map(t, ANSWER)),
        "conclusion": lambda t: features.conclusion(t("features"), t("probing"), t("task_probes")),
        "probing_figure": lambda t: features.probing_figure(t("probing")),
        "probing_sentence": lambda t: features.probing_sentence(t("probing")),
        "probing_table": lambda t: features.probing_table(t("probing")),
        "task_probes_figure": lambda t: features.task_probes_figure(t("task_probes")),
        "task_probes_sentence": lambda t: features.task_probes_sentence(t("task_probes")),
        "task_probes_table": lambda t: features.task_probes_table(t("task_probes")),
        "rules": lambda _: features.rules(),
        "setting": lambda _: features.setting(SMOKE),
    },
}  # fmt: skip
LIVE = {"explain", "sae"}
"""Of a page, what needs the models themselves: it has tests of its own."""
LONG = {"log_table", "synthetic_table", "gallery", "by_metric_table", "advice_table", "collapse_table",
        "generality_table"}  # fmt: skip
"""Tables that may be longer, since they list all arms, all scores, or a log."""
EVERY = [(page, name) for page, functions in SHOWN.items() for name in functions]


def rendered(shown):
    """What a notebook would show, as text; a figure is drawn, closed and named."""
    if isinstance(shown, Figure):
        shown.savefig(io.BytesIO(), dpi=40)
        plt.close(shown)
        assert plt.get_fignums() == []
        return "figure"
    if isinstance(shown, pd.DataFrame):
        assert len(shown) > 0
        assert all(isinstance(cell, str) for row in shown.to_numpy() for cell in row)
        return shown.to_html()
    assert isinstance(shown, Markdown)
    return shown.data


ANSWER = [table.name for table in answer.TABLES]


def elsewhere(table):
    """The contrasts in other settings, as notebook 05 joins them."""
    return table("generality").beside(table("raw_full_sizes"))


def sound(text):
    """Whether no cell or sentence shows what a reader cannot read."""
    assert text.strip()
    for wrong in (r"\bNone\b", r"\bnan\b", r"\binf\b", r"\bUndefined\b", "object at", r"Interval\("):
        assert not re.search(wrong, text), text
    return text


@pytest.mark.parametrize("page", SHOWN)
def test_no_function_of_a_page_is_left_out(page):
    module = importlib.import_module(f"archsae_study.pages.{page}")
    named = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert named - LIVE == SHOWN[page].keys()


@pytest.mark.parametrize(("page", "name"), EVERY, ids=[f"{page}.{name}" for page, name in EVERY])
def test_every_function_renders_the_smoke_report(report, page, name):
    shown = SHOWN[page][name](report.table)
    if isinstance(shown, pd.DataFrame) and name not in LONG:
        assert len(shown) <= ROWS
    sound(rendered(shown))


def test_the_claims_of_all_notebooks_render(report):
    names = ("activations", "binding", "evaluation", "stability", "reappearance", "ablation")
    results = {name: report.table(name) for name in names}
    sound(rendered(claims_table(None, standard=report.table("standard_sae"), **results)))


# --- other branches ---


def four(pairs, wobble=0.02):
    """The score of two seeds as those of four, which differ a little: enough for an interval."""
    score, n = np.array(pairs)[0, 1], 4
    off = score + wobble * np.array([[0, 1, -1, 0], [1, 0, 0, 1], [-1, 0, 0, -1], [0, 1, -1, 0]])
    return (off * (1 - np.eye(n))).tolist()


def with_four_seeds(arm):
    """An arm of the smoke report as if it had been run on four seeds."""

    def scores(found):
        return {name: Score(four(one.raw), one.chance) for name, one in found.items()}

    each = ("r2", "mse", "mse_normalised", "l0", "dead_share", "cosine_with_start", "ce_recovered", "effective_anchors",
            "relaxation_share")  # fmt: skip
    doubled = {name: None if getattr(arm, name) is None else getattr(arm, name) * 2 for name in each}
    trajectory = [
        AtStep(at.step, at.tokens, at.r2 * 2, at.cosine_with_start * 2, four(at.stability)) for at in arm.trajectory
    ]
    return replace(
        arm, seeds=[0, 1, 2, 3], **doubled, collapse_corrected=four(arm.collapse_corrected), start=scores(arm.start),
        end=scores(arm.end), trajectory=trajectory,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wide(report):
    found = report.table("stability")
    return StabilityResult([with_four_seeds(arm) for arm in found.arms], found.between)


STABILITY = [name for name in SHOWN["stability"] if name in (
    "advice", "advice_table", "between_arms", "between_sentence", "by_metric_table", "collapse_table", "conclusion",
    "decisions_table",
    "equal_terms_table", "gains_figure", "headline", "interaction_table", "movement", "reasons", "stability_figure",
    "trajectories", "arms_table",
)]  # fmt: skip


@pytest.mark.parametrize("name", STABILITY)
def test_comparisons_render_with_intervals(report, wide, name):
    text = rendered(SHOWN["stability"][name](lambda table: wide if table == "stability" else report.table(table)))
    if name in ("headline", "decisions_table", "arms_table", "interaction_table"):
        assert "[" in text
    sound(text)


@pytest.mark.parametrize("name", [name for name in STABILITY if name not in ("interaction_table", "advice_table")])
def test_comparisons_render_where_arms_are_missing_or_have_one_seed(report, name):
    found = report.table("stability")
    few = [arm for arm in found.arms if arm.arm in ("ra-own", "raw-ra-own", "topk-kmeans-own", "raw-topk-kmeans-own")]
    result = StabilityResult(few, [one for one in found.between if {one.first, one.second} <= {a.arm for a in few}])
    text = sound(
        rendered(SHOWN["stability"][name](lambda table: result if table == "stability" else report.table(table)))
    )
    if name in ("headline", "reasons", "equal_terms_table"):
        assert "not computed" in text or "was not run" in text
    if name == "advice":
        assert "No advice" in text


def test_advice_and_the_2_by_2_of_few_arms_are_empty_tables(report):
    few = StabilityResult([report.table("stability").by_key()["ra-own"]], [])
    assert len(stability.advice_table(few)) == 0
    assert len(stability.interaction_table(few)) == 0
    assert "No advice" in stability.advice(few, report.table("identifiability")).data


def test_the_answer_renders_with_and_without_intervals(report, wide):
    for result, said in ((report.table("stability"), "no interval"), (wide, "in stability")):
        tables = map(report.table, ANSWER[1:])
        text = answer.of_results(result, *tables)
        assert all(said in text for said in ("- **On centred data** (g1)", "(g2)", "(g3)", "- **Interpretability**"))
        assert said in sound(text)
    assert "| contrast |" in answer.answer(report.folder)


@pytest.mark.parametrize(
    ("scores", "lead"),
    [((0.5, 0.9, 0.6), "**A shared start does most**"), ((0.55, 0.5, 0.56), "**What start is shared**")],
)
def test_what_a_shared_start_does_is_said_as_it_was_measured(report, wide, scores, lead):
    """Beside the gains of the contrasts."""
    keys = ("topk-random-own", "topk-random-shared", "topk-kmeans-shared")
    pairs = [four([[0.0, score]], wobble=0.0) for score in scores]
    ends = {key: {HEADLINE: Score(raw, 0.0)} for key, raw in zip(keys, pairs, strict=True)}
    arms = [replace(arm, end=arm.end | ends.get(arm.arm, {})) for arm in wide.arms]
    tables = map(report.table, ANSWER[1:])
    assert lead in answer.of_results(StabilityResult(arms, wide.between), *tables)


@pytest.mark.parametrize(("steps", "told"), [(10, True), (10**6, False)])
def test_a_run_that_is_as_long_is_no_shorter_one(report, wide, steps, told):
    found, _, *rest, _ = map(report.table, ANSWER[1:])
    (first, *_), arms = found.settings, []
    for arm in first.arms:
        score = 0.9 if arm.arm in ("ra-own", "raw-ra-own") else 0.1
        pairs = (score * (1 - np.eye(3)) + 0.01 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])).tolist()
        end = replace(arm.end, r2=[0.8] * 3, cosine_with_start=[0.6] * 3, stability=pairs)
        arms.append(replace(arm, seeds=[0, 1, 2], end=end))
    result = GeneralityResult([SettingResult(replace(first.setting, steps=steps, changes={}, skipped=""), arms)])
    assert bool(stability.limit(wide, result, *rest)["shorter"]) == told


def test_the_limit_says_what_g1_is_at_the_published_sizes(report, wide):
    found, _, *rest = map(report.table, ANSWER[1:-1])
    assert "full protocol" not in stability.headline(wide, found, *rest).data
    *others, sizes, _ = found.settings
    arms = []
    for arm in others[0].arms:
        if arm.arm in sizes.setting.arms:
            three = np.array(four(arm.end.stability))[:3, :3].tolist()
            end = replace(arm.end, r2=[0.8] * 3, cosine_with_start=[0.6] * 3, stability=three)
            of_three = {"collapse_corrected": three, "distinct": [1.0] * 3, "along_first": [0.0] * 3}
            arms.append(replace(arm, seeds=[0, 1, 2], end=end, **of_three))
    run = SettingResult(replace(sizes.setting, steps=5000, skipped=""), arms)
    text = sound(stability.headline(wide, GeneralityResult([*others, run]), *rest).data)
    assert "**Elsewhere** (exploratory" in text
    assert "**At the sizes of the full protocol** (4,096 features, k = 64, 5,000 steps, 3 seeds): g1 is" in text


def aligned(before, own, nearest, *, free=False):
    arm = "raw-topk-kmeans-own" if free else "raw-ra-own"
    pairs = [[0.0, 0.6], [0.6, 0.0]]
    columns = [[one] * 2 for one in (0.9, 0.8, before, own, nearest)]
    return Alignment(arm, None if free else 0.9, [0, 1], *columns, pairs, pairs)


ALIGNMENTS = {
    "atoms end at an anchor": (0.5, 0.97, 0.98),
    "towards their anchors, without reaching": (0.5, 0.7, 0.7),
    "stay nearer to their anchors than free ones do": (0.9, 0.7, 0.75),
    "leave their anchors at least as far as free ones do": (0.9, 0.5, 0.6),
}


@pytest.mark.parametrize("said", ALIGNMENTS)
def test_where_spread_atoms_end_is_said_as_it_was_measured(said):
    arms = [aligned(0.99, 0.6, 0.65, free=True), aligned(*ALIGNMENTS[said])]
    text = sound(stability.alignment(AlignmentResult(arms)).data)
    assert said in text
    assert "was not run" in stability.alignment(AlignmentResult(arms[:1])).data


def control(kind, contrast, ra, free, gain):
    """Two sides of three seeds that agree to 0.6 + gain and to 0.6, all equally well, of atoms that have moved."""
    sides = [
        SideResult([0, 1, 2], constant(0.3), AtStep(9, 90, [0.7] * 3, [0.6] * 3, pairs), pairs)
        for pairs in (constant(0.6 + gain), constant(0.6))
    ]
    name = f"{contrast}, other" if contrast else "raw, other"
    return ControlResult(Control(kind, name, Side(ra, {}), Side(free, {}), 9, "", contrast), *sides)


def mean_stability(result, arm):
    return np.array(result.by_key()[arm].trajectory[-1].stability)[:3, :3][np.triu_indices(3, 1)].mean()


def constant(score):
    return np.full((3, 3), score).tolist()


def test_what_controls_change_is_counted(wide):
    own = {one.contrast.key: str(one.verdict) for one in wide.decisions()}
    ra, free = "ra-own", "topk-kmeans-own"
    repeated = {gain: control("rate", "g1", ra, free, gain) for gain in (0.0, 0.2)}
    alone = control("start", None, "raw-topk-random-own", "raw-topk-random-own", 0.1)
    decisions = {gain: one.decision(wide) for gain, one in repeated.items()}
    assert {gain: one.gain.estimate for gain, one in decisions.items()} == pytest.approx({0.0: 0.0, 0.2: 0.2})
    verdicts = {gain: str(one.verdict) for gain, one in decisions.items()}
    assert verdicts == {0.0: "not supported", 0.2: "supported"}
    without_copies = replace(repeated[0.2], first=replace(repeated[0.2].first, collapse_corrected=constant(0.7)))
    assert without_copies.decision(wide, merged=True).gain.estimate == pytest.approx(0.1)
    flagged = [CheckedRun("a run", [Flag("l0", "L0 is 1"), Flag("dead", "60%")]), CheckedRun("b", [Flag("l0", "L0")])]
    for gain, one in repeated.items():
        text = sound(stability.controls(ControlsResult([one, alone], ChecksResult(9, flagged)), wide).data)
        said = "no variant of a contrast" if gain == 0.0 else "g1, other"
        assert f"The rule would call {said} supported: 1 were run" in text
        assert (f"in the study *{own['g1']}*" in text) != (verdicts[gain] == own["g1"])
        assert "on raw data +0.100" in text
        assert "flag 2 of the 9 runs that these controls train: L0 is not k in 2, most features are dead in 1." in text
    mixed = control("random_w", None, "ra-random-w", "raw-ra-shared", -0.3)
    others = [control("anchors", "g3", "raw-ra-own", "raw-topk-kmeans-own", -0.1), mixed, *repeated.values()]
    binding = SimpleNamespace(of=lambda _: SimpleNamespace(vacuous=True))
    told = ControlsResult(others, ChecksResult(9, []))
    headline = stability.headline(wide, GeneralityResult([]), binding, AlignmentResult([]), told)
    text = sound(headline.data)
    assert "from 0.300 to 0.300 if each starts from random mixtures" in text
    assert "**With more anchors, from other starts** (other, 3 seeds): g3 is −0.100" in text
    without = StabilityResult([arm for arm in wide.arms if arm.arm != free], wide.between)
    shared = ControlResult(replace(alone.control, second=Side(free, {})), alone.first, None)
    assert shared.decision(without) is None
    assert shared.decision(wide).gain.estimate == pytest.approx(0.7 - mean_stability(wide, free))
    assert "an arm was not run" in str(stability.controls_table(ControlsResult([shared], ChecksResult(0, [])), without))
    only = sound(stability.controls(ControlsResult([alone], ChecksResult(3, [])), wide).data)
    assert "The 3 runs that these controls train pass the checks" in only
    assert "No contrast was repeated" in only
    assert "No control has an interval" in stability.controls(ControlsResult([], ChecksResult(0, [])), wide).data


@pytest.mark.parametrize(("kept", "said"), [(0.99, "Atoms stay at their start"), (0.9, "Atoms leave their start")])
def test_movement_is_told_from_the_start_and_from_the_centroid(kept, said):
    cosines = {"ra_cosine": Interval(kept, None, None), "free_cosine": Interval(0.65, None, None)}
    decision = SimpleNamespace(**cosines)
    assert stability._moved("model", decision, None) == ""
    assert stability._moved("smoothing", decision, None).endswith(
        f"{said}, which is not their centroid (cosine {kept:.3f}, free ones 0.650)."
    )
    told = stability._moved("smoothing", decision, aligned(0.99, 0.85, 0.86))
    assert "With their own centroid their centred cosine is 0.850; runs agree to 0.600" in told


def test_a_number_that_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        style.finding("stability", arms={})


@pytest.mark.parametrize("vacuous", [(True, False), (False, True), (True, True), (False, False)])
def test_the_hull_s_sentence_says_what_each_frame_excludes(report, vacuous):
    found = report.table("anchors")
    frames = [replace(found.of(frame), vacuous=one) for frame, one in zip(FRAMES, vacuous, strict=True)]
    text = sound(anchors.headline(report.table("activations"), replace(found, frames=frames)).data)
    assert ("in both frames" in text) == (vacuous[0] == vacuous[1])


def test_r2_without_an_interval_has_no_brackets(report):
    found = report.table("standard_sae")
    without = replace(found, quality=found.quality | {"intervals": {"r2": None}})
    with_one = replace(found, quality=found.quality | {"intervals": {"r2": (0.1, 0.2)}})
    assert "[" not in standard_sae.headline(without).data
    assert "[0.100, 0.200]" in standard_sae.headline(with_one).data


def test_the_sentence_on_w_says_whether_another_way_is_better(report):
    found = report.table("w_steps")
    for frame in FRAMES:
        used, other = found.in_use(frame).way, next(t for t in found.of(frame) if t.way == "adam-lr")
        for best, said in (
            (used, "the best of the constrained ways"),
            (other.way, f"here *{other.label}* is better by"),
        ):
            trials = [
                replace(one, r2_validation=0.9 if one.way == best else 0.5) if one.frame == frame else one
                for one in found.trials
            ]
            changed = replace(found, trials=trials)
            (line,) = [
                one for one in archetypal_sae.w_steps_sentence(changed).data.splitlines() if f"**{frame}**" in one
            ]
            assert said in line
            rendered(archetypal_sae.w_steps_figure(changed))


def test_what_mean_ablation_does_not_harm_cannot_be_recovered(report):
    found = report.table("evaluation")
    gone = {"recovered_mean": None, "recovered_zero": None}
    saes = [replace(sae, behaviour=sae.behaviour | gone, flags=[Flag("l0", "L0 is off")]) for sae in found.saes]
    result = replace(found, saes=saes)
    assert "–" in sound(evaluation.headline(result).data)
    sound(rendered(evaluation.scores(result)))
    sound(rendered(evaluation.scores_table(result, "centred")))
    assert len(evaluation.flagged(result, K)) == len(saes)
    assert "No flags" in evaluation.flagged(replace(found, saes=[replace(one, flags=[]) for one in found.saes]), K).data


def diverged(row):
    seeds = [
        replace(one, flags=[Flag("failed", "not finite")], **dict.fromkeys(
            ("r2", "mse", "dead_share", "l0", "cosine_with_start", "relax_at_bound", "effective_anchors")))
        for one in row.seeds
    ]  # fmt: skip
    return replace(row, seeds=seeds, stability=None)


def test_a_sweep_whose_every_run_diverged_is_shown(report):
    found = report.table("ablation")
    sweeps = [replace(one, rows=[diverged(row) for row in one.rows]) for one in found.sweeps]
    result = AblationResult(found.steps, sweeps)
    assert "no radius trained without a flag" in sound(delta_ablation.headline(result).data)
    assert "no radius trained without a flag" in sound(delta_ablation.conclusion(result).data)
    sound(rendered(delta_ablation.pareto(result)))
    assert "not finite" in sound(rendered(delta_ablation.radii_table(result, "raw")))


def flagged_row(row):
    return replace(row, seeds=[replace(one, flags=[Flag("l0", "L0 is off")]) for one in row.seeds])


def test_the_smallest_radius_is_told_as_it_is_where_it_diverged_or_is_flagged(report):
    found = report.table("ablation")
    for first, rest, said in (
        (diverged, lambda row: row, "the smallest radius diverged"),
        (lambda row: row, flagged_row, "no unflagged radius reconstructs better than the smallest"),
        (flagged_row, lambda row: row, "which is flagged, gives R²"),
    ):
        sweeps = [replace(one, rows=[first(one.rows[0]), *map(rest, one.rows[1:])]) for one in found.sweeps]
        text = sound(delta_ablation.headline(AblationResult(found.steps, sweeps)).data)
        assert said in text
        assert "reconstructs best of those that no check flags" in text


def test_at_a_radius_of_0_no_atom_uses_it_up(report):
    given = report.table("archetypal_sae"), report.table("binding")
    assert "use the whole radius" in archetypal_sae.conclusion(*given, SMOKE).data
    assert "use the whole radius" not in archetypal_sae.conclusion(*given, SMOKE.changed(delta=0.0)).data
    table = rendered(delta_ablation.radii_table(report.table("ablation"), "raw"))
    assert "δ = 0 " in table


def test_a_sweep_with_intervals_is_shown(report):
    found = report.table("ablation")
    sweeps = [
        replace(one, rows=[replace(row, stability=Interval(0.5, 0.4, 0.6)) for row in one.rows]) for one in found.sweeps
    ]
    rendered(delta_ablation.pareto(AblationResult(found.steps, sweeps)))
    assert "0.500 [0.400, 0.600]" in rendered(delta_ablation.radii_table(AblationResult(10, sweeps), "raw"))


@pytest.mark.parametrize("flagged", [0, 1, 30])
def test_flagged_runs_are_listed_up_to_twelve(flagged):
    result = ChecksResult(100, [CheckedRun(f"run {place}", [Flag("dead", "dead")]) for place in range(flagged)])
    shown = delta_ablation.checks_table(result)
    if not flagged:
        assert "All 100 runs pass" in shown.data
    else:
        assert len(shown) == (1 if flagged == 1 else 12)
        assert flagged == 1 or shown.index[-1] == "… and 19 more"


def test_what_was_not_run_is_said():
    assert "No run was trained" in stability.longer_table(LongerResult(1, [])).data
    assert "no feature" in stability.swap_table(SwapResult("no feature of two seeds fires")).data
    assert len(stability.reappearance_table(ReappearanceResult(0.7, []))) == 0
    rendered(stability.swap_figure(SwapResult("no feature of two seeds fires")))
    rendered(stability.longer_figure(LongerResult(1, [])))


def test_lines_from_names_to_points_do_not_cross():
    axis = style.panels(1)[1][0]
    points = np.random.default_rng(0).uniform(size=(12, 2))
    style.label_column(axis, [(f"{place}", "black", *point) for place, point in enumerate(points)])
    ends = [(style.LABEL_COLUMN, text.xyann[1]) for text in axis.texts]
    side = [[np.linalg.det([b - a, c - a]) > 0 for c in (*points, *ends)] for a, b in zip(points, ends, strict=True)]
    side = np.reshape(side, (12, 2, 12))
    apart = side[:, 0] == side[:, 1]
    assert (apart | apart.T | np.eye(12, dtype=bool)).all()
    assert np.diff(sorted(height for _, height in ends)).min() >= style.LABEL_GAP - 1e-9


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("topk-kmeans-shared", "ra-shared", True),
        ("ra-shared", "ra-random-w", True),
        ("topk-random-own", "topk-random-shared", True),
        ("topk-random-shared", "topk-random-own", False),
        ("topk-random-shared", "ra-shared", False),
        ("topk-kmeans-own", "ra-own", False),
    ],
)
def test_runs_of_two_arms_that_share_their_start_are_known(first, second, shared):
    assert stability._share(first, second) == shared


def note(verdict, gain, *, unmoved=False):
    found = Interval(gain, gain - 0.01, gain + 0.01)
    return {"decision": SimpleNamespace(verdict=verdict, gain=found, delta_r2=found), "unmoved": unmoved}


VERDICTS = {
    "No: where atoms move (g1), the constraint does not": ("not supported", "frozen", "frozen"),
    "No in g1, undetermined in g2: where it is decided and atoms move": ("not supported", "undetermined", "frozen"),
    "Undetermined: no contrast in which atoms move has an interval": ("undetermined", "frozen", "frozen"),
    "Undetermined: in no contrast do atoms leave the centroids": ("frozen", "frozen", "frozen"),
    "Undetermined: no contrast has an interval that decides.": ("undetermined", "undetermined", "undetermined"),
    "Yes, in g1 and g3: independent runs agree more": ("supported", "undetermined", "supported at a cost"),
}


NO_LIMIT = {"yes_elsewhere": False, "margin": 0.05, "apart": None}


@pytest.mark.parametrize("lead", VERDICTS)
def test_the_headline_says_no_more_than_the_verdicts(lead):
    beside = {f"g{place}": note(verdict, 0.1) for place, verdict in enumerate(VERDICTS[lead], start=1)}
    assert lead in sound(finding("lead", beside=beside, limit=NO_LIMIT).data)


def test_where_no_contrast_has_a_hull_that_excludes_and_atoms_that_move_the_headline_says_so():
    beside = {"g1": note("not supported", 0.0), "g2": note("frozen", 0.1, unmoved=True)}
    apart = NO_LIMIT | {"apart": {"vacuous": ["g1"], "unmoved": ["g2"]}}
    assert "In g1 the hull excludes none" in sound(finding("lead", beside=beside, limit=apart).data)
    assert "Main limit" not in sound(finding("lead", beside=beside, limit=NO_LIMIT).data)


APART = {  # contrasts whose hull excludes nothing, those whose atoms stayed, what is said
    "each lacks one of the two": ({"g1"}, {"g2", "g3"}, (["g1"], ["g2", "g3"])),
    "one has both": ({"g1"}, {"g2"}, None),
    "all atoms stay": ({"g1"}, {"g1", "g2", "g3"}, None),
    "all atoms move and no hull excludes": ({"g1", "g2", "g3"}, set(), None),
}


@pytest.mark.parametrize("case", APART)
def test_the_main_limit_is_found_from_the_hulls_and_the_movement(monkeypatch, case):
    free, stayed, said = APART[case]
    frames = {"g1": "centred", "g2": "raw", "g3": "raw"}
    monkeypatch.setattr(stability, "beside", lambda _: {key: {"unmoved": key in stayed} for key in frames})
    gain = Interval(0.1, 0.0, 0.2)
    decisions = [SimpleNamespace(contrast=one, gain=gain) for one in stability.contrasts.PRIMARY]
    binding = SimpleNamespace(
        of=lambda frame: SimpleNamespace(vacuous=all(key in free for key in frames if frames[key] == frame))
    )
    found = stability._apart(SimpleNamespace(decisions=lambda: decisions), binding)
    assert found == (said and {"vacuous": said[0], "unmoved": said[1]})


def test_an_unmoved_contrast_that_is_not_supported_is_no_answer():
    beside = {"g1": note("undetermined", 0.1), "g2": note("not supported", 0.0, unmoved=True)}
    found = sound(finding("lead", beside=beside, limit=NO_LIMIT).data)
    assert "Undetermined: no contrast in which atoms move has an interval that decides" in found
    assert "No:" not in found


ADVICE = {
    "Nothing here makes features come back": (0.03, 0.02, 0.01, None),
    "The constraint brings most, and the rule calls it frozen": (0.08, 0.02, 0.32, None),
    "a shared start brings more than the constraint": (0.08, 0.2, 0.01, None),
    "a shared start brings more": (0.3, 0.0, 0.01, 0.6),
    "A k-means start brings more than the constraint": (0.3, 0.0, 0.1, None),
}


@pytest.mark.parametrize("lead", ADVICE)
def test_the_advice_names_what_brings_most(lead):
    start, share, constraint, random_shared = ADVICE[lead]
    scores = {"topk-random-own": 0.2, "topk-kmeans-own": 0.2 + start, "topk-kmeans-shared": 0.2 + start + share}
    scores |= {"ra-own": 0.2 + start + constraint, "ra-shared": 0.9}
    scores |= {} if random_shared is None else {"topk-random-shared": 0.2 + random_shared}
    values = dict(s=scores, r2=dict.fromkeys(scores, 0.7), margin=0.05, steps=100, planted={}, verdict="frozen")
    assert lead in sound(finding("advice", **values).data)


def test_a_match_that_does_harm_does_none_of_the_work():
    row = SimpleNamespace(label="0.5 to 0.7", share={"partner": Interval(1.3, 1.2, 1.4)})
    found = sound(finding("swap", reason="", bins=[row], arms=["a"]).data)
    assert "do none of their feature's work: one in its place changes as much as taking it out" in found


def test_without_a_radius_that_trained_soundly_the_headline_says_so(report, monkeypatch):
    monkeypatch.setattr(Sweep, "best", None)
    text = sound(delta_ablation.headline(report.table("ablation")).data)
    assert "**No radius trained without a flag, in either frame.**" in text
