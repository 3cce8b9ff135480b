"""Each published claim is judged by one rule: its outcome by hand on both sides of every edge."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from archsae_core.data.copies import CopiesReport
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.stability import HEADLINE
from archsae_core.metrics.structure import collapse
from archsae_core.metrics.subspaces import Subspaces
from archsae_study.experiments.ablation import AblationResult, Row, SeedResult, Sweep
from archsae_study.experiments.activations import ActivationsResult
from archsae_study.experiments.claims import CLAIMS, Outcome, Results
from archsae_study.experiments.dictionaries import BindingResult, DictionaryResult, FrameBinding, ReachOfAtoms
from archsae_study.experiments.evaluation import EvaluatedSAE, EvaluationResult
from archsae_study.experiments.reappearance import ReappearanceResult, ReappearanceRow
from archsae_study.experiments.stability import ArmResult, AtStep, Score, StabilityResult
from archsae_study.experiments.task_probes import RAW, TaskProbeRow, TaskProbesResult
from archsae_study.pages.claims import claims_table
from archsae_study.protocol.contrasts import Verdict

MATCH, PARTLY, NO, OPEN, NOT_COMPARABLE, NOT_RUN, STILL, OWN = Outcome


def judged(claim, **results):
    """Text and outcome of the one claim that begins with these words."""
    (found,) = [one for one in CLAIMS if one.claim.startswith(claim)]
    return found.judge(Results(**results))


def activations(ratio):
    """Position 0 so many times as long as the median activation."""
    train = {"position0_norm": 30.0 * ratio, "median_norm": 30.0}
    return ActivationsResult({}, {}, [], "", [], CopiesReport(0, 0, 0, 0, 0, 0, 0, ()), [], train, {}, {}, [], [])


@pytest.mark.parametrize(("ratio", "outcome"), [(100, MATCH), (99.9, PARTLY), (10, PARTLY), (9.9, NO)])
def test_the_first_position(ratio, outcome):
    assert judged("the first position", activations=activations(ratio))[1] is outcome


def reach(cosine):
    return ReachOfAtoms("topk", "free", {"0.5": cosine}, [cosine], 3.0)


@pytest.mark.parametrize(("cosine", "outcome"), [(0.95, MATCH), (0.9499, PARTLY), (0.8, PARTLY), (0.7999, NO)])
def test_the_hull_is_judged_by_its_raw_frame(cosine, outcome):
    frames = [FrameBinding(frame, False, [reach(one)], {}) for frame, one in (("centred", 0.1), ("raw", cosine))]
    assert judged("the hull", binding=BindingResult(frames))[1] is outcome


@pytest.mark.parametrize("frame", ["raw", "centred"])
@pytest.mark.parametrize(("cost", "outcome"), [(-0.0099, MATCH), (-0.0101, PARTLY), (-0.0499, PARTLY), (-0.0501, NO)])
def test_the_cost_in_r2_is_that_of_its_frame(frame, cost, outcome):
    saes = [
        EvaluatedSAE(role, one, role, {"r2": 0.8 + (cost if (role, one) == ("ra", frame) else 0.0)}, {}, [])
        for role in ("topk-kmeans", "ra")
        for one in ("raw", "centred")
    ]
    evaluation = EvaluationResult(1, 1, 1, 0, {}, {}, saes)
    claim = "the constraint costs almost no R² with the step chosen for W"
    assert judged(f"{claim} ({frame}", evaluation=evaluation)[1] is outcome
    other = {"raw": "centred", "centred": "raw"}[frame]
    assert judged(f"{claim} ({other}", evaluation=evaluation)[1] is MATCH


def test_what_nobody_has_put_a_number_to_matches_nothing():
    saes = [EvaluatedSAE(role, "raw", role, {"r2": 0.8}, {}, []) for role in ("topk-kmeans", "ra")]
    (claim,) = [one for one in CLAIMS if "with the step chosen for W (raw" in one.claim]
    assert claim.judged(Results(evaluation=EvaluationResult(1, 1, 1, 0, {}, {}, saes)))[1] is OWN
    assert claim.judged(Results())[1] is NOT_RUN


def arm(key, seeds=3, start=0.5, cosine=0.7, r2=0.8, **raw):
    """An arm whose pairs of seeds all score the same; `raw` holds scores by name, less no chance."""
    off = 1 - np.eye(seeds)
    end = {name: Score((value * off).tolist(), 0.0) for name, value in {HEADLINE: 0.5, **raw}.items()}
    at = AtStep(10, 2_000_000, [r2] * seeds, [cosine] * seeds, (0.5 * off).tolist())
    each = {name: [1.0] * seeds for name in ("mse", "mse_normalised", "l0", "dead_share")}
    return ArmResult(
        arm=key, seeds=list(range(seeds)), r2=[r2] * seeds, **each, ce_recovered=None,
        cosine_with_start=[cosine] * seeds,
        effective_anchors=None, relaxation_share=None, collapse=collapse(torch.eye(8)), collapse_corrected=at.stability,
        start={"hungarian": Score((start * off).tolist(), 0.0)}, end=end, trajectory=[at],
    )  # fmt: skip


def stability(*arms):
    return StabilityResult(list(arms), [])


def scored(key, less_chance, hungarian=0.5):
    """An arm with this headline score, less a chance level of 0.2, and this raw cosine."""
    found = arm(key, hungarian=hungarian)
    off = 1 - np.eye(len(found.seeds))
    return replace(found, end=found.end | {HEADLINE: Score(((0.2 + 0.8 * less_chance) * off).tolist(), 0.2)})


EDGES = [(0.2001, MATCH), (0.1999, PARTLY), (0.0501, PARTLY), (0.0499, NO)]


@pytest.mark.parametrize(("gain", "outcome"), EDGES)
def test_more_stable_is_judged_less_chance(gain, outcome):
    claim, ra = "RA-SAE agrees far more between", "raw-ra-published-shared"
    found = stability(scored(ra, 0.4 + gain), scored("raw-topk-random-own", 0.4))
    assert judged(claim, stability=found)[1] is outcome
    assert judged(claim, stability=stability(scored(ra, 0.9)))[1] is NOT_RUN


@pytest.mark.parametrize(("gain", "outcome"), EDGES)
def test_own_anchors_are_judged_beside_own_centroids_where_atoms_moved(gain, outcome):
    claim = "RA-SAE agrees far more when each"
    arms = [scored("raw-topk-random-own", 0.1), scored("raw-topk-kmeans-own", 0.4)]
    ra = scored("raw-ra-published-own", 0.4 + gain)
    said, found = judged(claim, stability=stability(ra, *arms))
    assert "0.100 (TopK, random) → 0.400 (TopK, own centroids)" in said
    assert found is outcome
    still = replace(ra, cosine_with_start=[0.99] * 3)
    assert judged(claim, stability=stability(still, *arms))[1] is STILL
    assert judged(claim, stability=stability(ra, arms[1]))[1] is NOT_RUN


@pytest.mark.parametrize(("cost", "outcome"), [(-0.0099, MATCH), (-0.0101, PARTLY), (-0.0499, PARTLY), (-0.0501, NO)])
def test_the_cost_as_published_is_that_of_its_contrast(cost, outcome):
    g2 = contrast("raw-ra-published-own", "raw-topk-kmeans-own", gain=0.0, r2=0.8 + cost)
    g3 = contrast("raw-ra-own", "raw-topk-kmeans-own", gain=0.0, r2=0.1)
    claim = "the constraint costs almost no R² (raw, published step"
    assert judged(claim, stability=stability(*g2, g3[0]))[1] is outcome
    assert judged(claim, stability=stability(*g3))[1] is NOT_RUN


def test_a_baseline_far_below_the_published_one_does_not_make_a_match():
    ra, claim = scored("raw-ra-published-shared", 0.9), "RA-SAE agrees far more between"
    for cosine, outcome in ((0.343, MATCH), (0.341, PARTLY)):
        assert judged(claim, stability=stability(ra, scored("raw-topk-random-own", 0.1, cosine)))[1] is outcome


@pytest.mark.parametrize(("start", "outcome"), [(0.999, MATCH), (0.9989, PARTLY), (0.95, PARTLY), (0.9499, NO)])
def test_identical_before_training(start, outcome):
    assert judged("runs of RA-SAE", stability=stability(arm("raw-ra-published-shared", start=start)))[1] is outcome


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("gap", "outcome"), [(0.0499, MATCH), (0.0501, PARTLY), (0.1499, PARTLY), (0.1501, NO)])
def test_the_start_suffices_in_either_direction(sign, gap, outcome):
    found = stability(
        arm("raw-ra-published-shared", hungarian=0.6), arm("raw-topk-kmeans-shared", hungarian=0.6 + sign * gap)
    )
    assert judged("TopK from the same shared", stability=found)[1] is outcome


def contrast(ra, free, *, gain, cosine=0.7, r2=0.8, wobble=0.0):
    """Two arms of a primary contrast whose scores differ by `gain`; with a wobble, more or less by seed."""
    first, second = arm(ra, cosine=cosine, r2=r2), arm(free)
    matrix = np.array(first.end[HEADLINE].raw) + gain * (1 - np.eye(3))
    matrix += wobble * np.array([[0, 1, -1], [1, 0, 0], [-1, 0, 0]])
    return [replace(first, end={HEADLINE: Score(matrix.tolist(), 0.0)}), second]


def artefact(*arms):
    return judged("the stability is an artefact", stability=stability(*arms))


def test_only_frozen_atoms_show_an_artefact_of_the_start():
    g1, g3 = ("ra-own", "topk-kmeans-own"), ("raw-ra-own", "raw-topk-kmeans-own")
    none, frozen = contrast(*g1, gain=0.0), contrast(*g3, gain=0.3, cosine=0.99)
    assert artefact(*frozen) == (f"g3 {Verdict.FROZEN}", MATCH)
    said = f"consistent with it: g1 {Verdict.NOT_SUPPORTED}; g3 {Verdict.FROZEN}"
    assert artefact(*none, *frozen) == (said, PARTLY)
    assert artefact(*none, *contrast(*g3, gain=0.3))[1] is NO
    assert artefact(*none, *contrast(*g3, gain=0.3, r2=0.5))[1] is NO  # bought with R², but moved
    undetermined = contrast(*g3, gain=0.05, wobble=0.3)
    assert artefact(*none, *undetermined)[1] is PARTLY
    assert artefact(*undetermined) == (f"g3 {Verdict.UNDETERMINED}", OPEN)
    assert artefact(*frozen, *contrast(*g1, gain=0.05, wobble=0.3))[1] is MATCH
    assert artefact(*none[:1])[1] is NOT_RUN


@pytest.mark.parametrize(("gain", "outcome"), [(0.4001, MATCH), (0.3999, PARTLY), (0.1001, PARTLY), (0.0999, NO)])
def test_any_shared_start(gain, outcome):
    found = stability(arm("topk-random-own", greedy=0.3), arm("topk-random-shared", greedy=0.3 + gain))
    assert judged("sharing any start", stability=found)[1] is outcome


@pytest.mark.parametrize("score", [0.0, 0.7, 1.0])
def test_what_is_not_comparable_is_shown_and_never_judged(score):
    found = stability(arm("topk-random-own", shared=score, pw_mcc=score))
    for claim in ("share of TopK features", "PW-MCC"):
        assert judged(claim, stability=found) == (f"{score:.2f} after 2.0 M tokens", NOT_COMPARABLE)
    standard = DictionaryResult("topk", "topk-random-own", "centred", "", [], {"r2": score}, {})
    assert judged("a TopK baseline", standard=standard) == (f"{score:.3f}, of another model", NOT_COMPARABLE)


def subspace(other):
    return Subspaces(4000.0, 60.0, Interval(other, None, None), own=0.5, data=0.4, chance=0.1)


def reappearance(*found):
    rows = [ReappearanceRow(f"arm-{i}", "TopK", 100, 50, 0.5, 40, {}, one) for i, one in enumerate(found)]
    return ReappearanceResult(0.7, rows)


@pytest.mark.parametrize(
    ("other", "outcome"), [(0.4801, MATCH), (0.4799, PARTLY), (0.4401, PARTLY), (0.4399, NO), (0.3, NO)]
)
def test_subspaces_are_graded_between_principal_components_and_the_own_one(other, outcome):
    found = reappearance(subspace(other), None)
    assert judged("features that do not come back", reappearance=found)[1] is outcome


def test_subspaces_of_all_arms_count_alike():
    found = reappearance(subspace(0.3), subspace(0.49))
    said, outcome = judged("features that do not come back", reappearance=found)
    assert "another seed's holds -100% to 90% in 2 arms" in said
    assert outcome is PARTLY


def test_too_few_lost_features_are_no_outcome():
    for found in (reappearance(None), ReappearanceResult(0.7, []), None):
        assert judged("features that do not come back", reappearance=found)[1] is NOT_RUN


def row(arm, r2, delta=None, relative=None):
    seed = SeedResult(0, r2, 1.0, 0.0, 4.0, 0.5, 0.5, 3.0, [])
    return Row(arm, delta, relative, [seed], None)


def ablation(centred=(), raw=()):
    return AblationResult(10, [Sweep("centred", 10.0, [], list(centred)), Sweep("raw", 10.0, list(raw), [])])


@pytest.mark.parametrize(("gap", "outcome"), [(-0.0199, MATCH), (-0.0201, PARTLY), (-0.0999, PARTLY), (-0.1001, NO)])
def test_a_frozen_decoder(gap, outcome):
    references = [row("frozen-own", 0.8 + gap), row("topk-kmeans-own", 0.8)]
    assert judged("a frozen decoder", ablation=ablation(centred=references))[1] is outcome
    assert judged("a frozen decoder", ablation=ablation(centred=references[:1]))[1] is NOT_RUN
    diverged = [references[0], row("topk-kmeans-own", None)]
    assert judged("a frozen decoder", ablation=ablation(centred=diverged))[1] is NOT_RUN


@pytest.mark.parametrize(("loss", "outcome"), [(0.0099, MATCH), (0.0101, PARTLY), (0.0499, PARTLY), (0.0501, NO)])
def test_a_small_radius_is_the_one_nearest_to_1_percent(loss, outcome):
    rows = [
        row("raw-ra-own", 0.1, 0.0, 0.0),
        row("raw-ra-own", 0.8 - loss, 0.09, 0.009),
        row("raw-ra-own", 0.8, 5.0, 0.5),
    ]
    assert judged("a small radius", ablation=ablation(raw=rows))[1] is outcome
    assert judged("a small radius", ablation=ablation(raw=[row("raw-ra-own", None, 0.0, 0.0)]))[1] is NOT_RUN


@pytest.mark.parametrize(("wins", "outcome"), [(3, MATCH), (2, PARTLY), (1, NO)])
def test_a_regression_on_raw_activations_wins_by_tasks(wins, outcome):
    raw = [[0.9]] * wins + [[0.6]] * (4 - wins)
    topk = [[0.6, 0.9]] * 4  # 0.75 in the mean of its seeds
    rows = (TaskProbeRow("topk-kmeans-own", "TopK", (0, 1), {"16": topk}), TaskProbeRow(RAW, RAW, (0,), {"all": raw}))
    claim = "a regression on raw activations"
    assert judged(claim, task_probes=TaskProbesResult("", rows=rows))[1] is outcome
    assert judged(claim, task_probes=TaskProbesResult("", made_up=True, rows=rows))[1] is NOT_RUN
    assert judged(claim, task_probes=TaskProbesResult("", rows=rows[:1]))[1] is NOT_RUN


def test_without_results_nothing_is_judged():
    assert {one.judge(Results())[1] for one in CLAIMS} == {NOT_RUN}
    assert len({one.claim for one in CLAIMS}) == len(CLAIMS)


def test_one_seed_is_no_comparison():
    lone = [arm(key, seeds=1, hungarian=0.9) for key in ("raw-ra-published-shared", "raw-topk-random-own")]
    assert judged("RA-SAE agrees far more between", stability=stability(*lone))[1] is NOT_RUN


def test_a_notebook_shows_its_own_claims_and_the_last_one_all():
    assert len(claims_table()) == len(CLAIMS)
    assert list(claims_table("02_standard_sae").index) == ["a TopK baseline explains this much variance"]
    assert set(claims_table()["outcome"]) == {str(NOT_RUN)}
    with pytest.raises(TypeError, match="unknown"):
        claims_table(unknown=1)
