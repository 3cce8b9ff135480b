"""The rules of the study: every branch by hand, and what no outcome may ever do, for random outcomes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsae_core.metrics.intervals import PRIMARY_LEVEL, common_seeds, mean_interval, seed_interval, share_interval
from archsae_study.pages.stability import same_verdicts
from archsae_study.protocol import contrasts
from archsae_study.protocol.contrast_cases import CASE, WOBBLE, arm, study, synthetic_cases, synthetic_table
from archsae_study.protocol.contrasts import (
    PRIMARY,
    SQUARES,
    ArmOutcome,
    ProbeOutcome,
    Square,
    Verdict,
    decide,
    decide_probes,
)

POSITIVE = (Verdict.SUPPORTED, Verdict.AT_A_COST)


def made_up(number, centre, spread, unmoved, costly, seeds):
    """An arm with random scores of a given kind, close to where verdicts change."""
    generator, n = np.random.default_rng(number), len(seeds)
    r2, cosine, ce = generator.uniform(0.8, 0.9, size=(3, n))
    return ArmOutcome(
        tuple(seeds),
        centre + spread * generator.normal(size=(n, n)),
        tuple((r2 - 0.1 * costly).tolist()),
        tuple((cosine + 0.1 * unmoved).tolist()),
        tuple(ce.tolist()),
    )


KINDS = st.tuples(
    st.integers(0, 10**6), st.floats(0.4, 0.7), st.sampled_from([0.0, 0.01, 0.1]), st.booleans(), st.booleans()
)
"""Arguments of `made_up` but for the seeds. Arms are made in the tests: checking shapes draws from `random`, which
strategies may not."""
SEEDS = st.lists(st.integers(0, 9), min_size=2, unique=True)
STUDIES = st.tuples(KINDS, KINDS, KINDS, KINDS, st.integers(3, 8), st.integers(0, 3))


def built(kinds):
    """The four arms of a contrast; the archetypal one gains 0.1 on average, and has seeds that its baseline lacks."""
    (number, centre, *rest), *others, n_seeds, more = kinds
    arms = [(number, centre + 0.1, *rest), *others]
    ranges = (range(n_seeds + more), range(n_seeds), range(3), range(1, 5))
    return {name: made_up(*kind, seeds) for name, kind, seeds in zip(CASE.arms, arms, ranges, strict=True)}


def changed(found, name, **fields):
    return found | {name: replace(found[name], **fields)}


def lowered(values, by):
    return tuple(value - amount for value, amount in zip(values, by, strict=False))


AMOUNTS = st.lists(st.floats(0, 0.3), min_size=11, max_size=11)


# --- the rule ---


@pytest.mark.parametrize("case", synthetic_cases(), ids=lambda case: case.what)
def test_the_rule_says_what_anyone_would_want(case):
    assert decide(CASE, case.outcomes).verdict is case.expected


@pytest.mark.parametrize("case", synthetic_cases(), ids=lambda case: case.what)
def test_verdicts_hold_between_the_margins_and_thresholds_that_the_report_names(case, monkeypatch):
    decision = decide(CASE, case.outcomes)
    same = same_verdicts([decision])
    assert (same is None) == (decision.gain is None)
    ends = [("MARGIN", "above", "below"), ("UNMOVED", "moved", "kept")] if same else []
    for name, low, high in ends:
        inside, outside = (same[low] + 1e-9, same[high] - 1e-9), (same[low] - 1e-9, same[high] + 1e-9)
        for value, holds in [(value, True) for value in inside] + [(value, False) for value in outside]:
            if 0 < value < 1:
                with monkeypatch.context() as patch:
                    patch.setattr(contrasts, name, value)
                    assert (decide(CASE, case.outcomes).verdict is decision.verdict) == holds, (name, value)


def test_the_cases_show_every_verdict_and_their_table_is_what_the_rule_says():
    rows = synthetic_table()
    assert {row["says"] for row in rows} == {str(verdict) for verdict in Verdict}
    assert [row["case"] for row in rows] == [case.what for case in synthetic_cases()]
    assert sum(WOBBLE) == pytest.approx(0, abs=1e-12)
    assert any("an interval that contains −0.02" in row["reason"] for row in rows)
    assert [row["share"] for row in rows][-1].endswith("may be 0")


def test_every_number_is_that_of_the_named_arms_at_the_named_level():
    found = study(arm(0.75, 0.85, 0.7, wobble=1.0), arm(0.6, 0.87, 0.66, wobble=-0.5))
    decision = decide(CASE, found)
    ra, free, shared, random = (found[name] for name in CASE.arms)
    assert decision.gain == seed_interval(ra.stability, free.stability, level=PRIMARY_LEVEL)
    assert decision.delta_r2 == mean_interval(ra.r2, free.r2, level=PRIMARY_LEVEL)
    assert decision.delta_ce_recovered == mean_interval(ra.ce_recovered, free.ce_recovered, level=PRIMARY_LEVEL)
    assert decision.ra_cosine == mean_interval(ra.cosine_with_start, level=PRIMARY_LEVEL)
    part, whole = (ra.stability - free.stability)[:5, :5], shared.stability - random.stability
    assert decision.share == share_interval(part, whole, level=PRIMARY_LEVEL)
    assert decision.seeds == tuple(range(8))
    wide, narrow = (decide(CASE, found, level=level).gain for level in (0.999, 0.9))
    assert wide.low < decision.gain.low < narrow.low


def test_an_undetermined_gain_says_how_many_seeds_would_decide():
    found = decide(CASE, study(arm(0.66, 0.87, 0.7, wobble=1.5), arm(0.6, 0.87, 0.66)))
    assert found.verdict is Verdict.UNDETERMINED
    assert found.seeds_to_decide > 8
    assert f"about {found.seeds_to_decide} seeds" in found.reason
    assert decide(CASE, study(arm(0.9, 0.87, 0.7), arm(0.6, 0.87, 0.66))).seeds_to_decide is None


@pytest.mark.parametrize("gone", [CASE.ra, CASE.free])
def test_a_missing_arm_is_named(gone):
    found = study(arm(0.9, 0.87, 0.7), arm(0.6, 0.87, 0.66))
    del found[gone]
    decision = decide(CASE, found)
    assert (decision.verdict, decision.reason, decision.gain) == (Verdict.UNDETERMINED, f"not computed: {gone}", None)


def test_seeds_that_only_one_arm_has_are_left_out():
    found = study(arm(0.75, 0.87, 0.7), arm(0.6, 0.87, 0.66, wobble=-0.5))
    few = found[CASE.free].of((5, 2, 7, 0))
    decision = decide(CASE, found | {CASE.free: few})
    assert decision.seeds == (0, 2, 5, 7)
    assert decision == decide(CASE, found | {CASE.free: few, CASE.ra: found[CASE.ra].of((0, 2, 5, 7))})
    alone = decide(CASE, found | {CASE.free: few.of((5, 2))})
    assert (alone.verdict, alone.seeds) == (Verdict.UNDETERMINED, (2, 5))
    assert "2 seeds in common" in alone.reason


def test_a_missing_published_arm_takes_the_share_alone():
    found = study(arm(0.75, 0.87, 0.7), arm(0.6, 0.87, 0.66))
    whole = decide(CASE, found)
    del found[CASE.published[0]]
    part = decide(CASE, found)
    assert (part.verdict, part.gain) == (whole.verdict, whole.gain)
    assert part.share == (None, f"not computed: {CASE.published[0]}")


def test_ce_that_one_arm_lacks_has_no_difference():
    found = study(arm(0.75, 0.87, 0.7), arm(0.6, 0.87, 0.66))
    decision = decide(CASE, changed(found, CASE.free, ce_recovered=None))
    assert (decision.verdict, decision.delta_ce_recovered) == (Verdict.SUPPORTED, None)


@pytest.mark.parametrize("cosine", [0.9499, 0.95])
def test_frozen_begins_at_a_cosine_of_095(cosine):
    found = decide(CASE, study(arm(0.75, 0.87, cosine), arm(0.6, 0.87, 0.66)))
    assert found.verdict is (Verdict.FROZEN if cosine >= 0.95 else Verdict.SUPPORTED)


# --- what may never happen ---


@given(STUDIES, AMOUNTS)
def test_a_lower_r2_never_helps_the_archetypal_arm(kinds, amounts):
    found = built(kinds)
    before = decide(CASE, found).verdict
    after = decide(CASE, changed(found, CASE.ra, r2=lowered(found[CASE.ra].r2, amounts))).verdict
    assert after is before or (before, after) == POSITIVE


def test_losing_an_arm_s_one_good_seed_never_helps_it_although_it_shortens_the_interval():
    found = study(arm(0.75, 0.86, 0.7, r2_wobble=0.0), arm(0.6, 0.87, 0.66, r2_wobble=0.0))
    uneven = changed(found, CASE.ra, r2=(0.99, *found[CASE.ra].r2[1:]))
    before, after = decide(CASE, uneven), decide(CASE, found)
    assert not before.delta_r2.above(-0.02)
    assert after.delta_r2.above(-0.02)
    assert before.verdict is after.verdict is Verdict.SUPPORTED
    assert "an interval that contains −0.02" in before.reason


@given(STUDIES, AMOUNTS)
def test_a_better_baseline_never_turns_the_verdict_into_supported(kinds, amounts):
    found = built(kinds)
    before = decide(CASE, found).verdict
    worse = tuple(-amount for amount in amounts)
    after = decide(CASE, changed(found, CASE.free, r2=lowered(found[CASE.free].r2, worse))).verdict
    assert after is before or (before, after) == POSITIVE


@given(STUDIES, st.floats(0.001, 0.3))
def test_a_more_stable_baseline_never_helps(kinds, more):
    found = built(kinds)
    order = {Verdict.NOT_SUPPORTED: 0, Verdict.UNDETERMINED: 1}
    stability = found[CASE.free].stability + more
    before, after = (decide(CASE, each).verdict for each in (found, changed(found, CASE.free, stability=stability)))
    assert order.get(after, 2) <= order.get(before, 2)


@given(STUDIES, AMOUNTS)
def test_staying_closer_to_the_start_never_helps(kinds, amounts):
    found = built(kinds)
    cosine = lowered(found[CASE.ra].cosine_with_start, tuple(-amount for amount in amounts))
    before, after = (decide(CASE, each).verdict for each in (found, changed(found, CASE.ra, cosine_with_start=cosine)))
    assert after is before or (before in POSITIVE and after is Verdict.FROZEN)


@given(STUDIES, st.randoms(use_true_random=False))
def test_the_order_of_seeds_changes_nothing(kinds, random):
    found = built(kinds)
    mixed = {}
    for name, each in found.items():
        seeds = list(each.seeds)
        random.shuffle(seeds)
        mixed[name] = each.of(seeds)
    assert decide(CASE, mixed) == decide(CASE, found)


@given(STUDIES, st.integers(100, 999))
def test_renaming_a_seed_in_every_arm_changes_no_verdict(kinds, name):
    found = built(kinds)
    renamed = {
        key: replace(each, seeds=tuple(name if seed == 0 else seed for seed in each.seeds))
        for key, each in found.items()
    }
    assert decide(CASE, renamed).verdict is decide(CASE, found).verdict


@given(STUDIES, KINDS)
def test_other_arms_change_nothing(kinds, other):
    found = built(kinds)
    assert decide(CASE, found | {"topk-random-shared": made_up(*other, range(8))}) == decide(CASE, found)


@given(STUDIES)
def test_exactly_one_verdict_and_it_agrees_with_the_interval(kinds):
    found = built(kinds)
    decision = decide(CASE, found)
    gain = decision.gain
    assert (decision.verdict is Verdict.NOT_SUPPORTED) == (gain.high < 0.05)
    assert (decision.verdict is Verdict.UNDETERMINED) == (gain.low <= 0.05 <= gain.high)
    if gain.low > 0.05:
        frozen = np.mean(found[CASE.ra].of(decision.seeds).cosine_with_start) >= 0.95
        cheap = decision.delta_r2.estimate > -0.02
        expected = Verdict.FROZEN if frozen else Verdict.SUPPORTED if cheap else Verdict.AT_A_COST
        assert decision.verdict is expected


@given(KINDS, KINDS, SEEDS, SEEDS)
def test_any_seeds_get_a_decision_with_an_interval_from_three_in_common(ra, free, seeds, others):
    decision = decide(CASE, {CASE.ra: made_up(*ra, seeds), CASE.free: made_up(*free, others)})
    assert decision.seeds == common_seeds(seeds, others)
    assert (decision.gain is None) == (len(decision.seeds) < 3)


# --- the contrasts ---


def test_the_primary_contrasts_are_those_of_the_protocol():
    assert [contrast.key for contrast in PRIMARY] == ["g1", "g2", "g3"]
    assert [contrast.frame for contrast in PRIMARY] == ["centred", "raw", "raw"]
    assert all(contrast.free.endswith("topk-kmeans-own") and contrast.ra.endswith("-own") for contrast in PRIMARY)
    assert [("published" in contrast.ra, "published" in contrast.published[0]) for contrast in PRIMARY] == [
        (False, False), (True, True), (False, False),
    ]  # fmt: skip
    for contrast in PRIMARY:
        assert all(name.startswith("raw-") == (contrast.frame == "raw") for name in contrast.arms)
        assert contrast.published == (contrast.ra.removesuffix("own") + "shared", contrast.published[1])


def test_outcomes_that_do_not_fit_are_refused_by_name():
    good = arm(0.5, 0.8, 0.9, seeds=3)
    holed = good.stability.copy()
    holed[0, 1] = np.nan
    for fields, message in (
        ({"seeds": (0, 1, 1)}, "seeds = .*once"),
        ({"stability": np.zeros((2, 2))}, "stability has the shape"),
        ({"stability": holed}, "stability: the score of some pair"),
        ({"r2": (0.5, 0.5)}, "r2 = .*3 seeds"),
        ({"cosine_with_start": (0.5, 0.5, np.inf)}, "cosine_with_start"),
        ({"ce_recovered": (0.5,)}, "ce_recovered"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **fields)


# --- start × dictionary ---


def square_of(own_free, shared_free, own_ra, shared_ra, seeds=5):
    cells = {(s, k): f"{s} {k}" for s in ("own", "shared") for k in ("free", "archetypal")}
    values = (own_free, own_ra, shared_free, shared_ra)
    wobbles = (0.5, -0.3, 0.2, 1.0)
    made = (arm(value, 0.8, 0.9, seeds=seeds, wobble=w) for value, w in zip(values, wobbles, strict=True))
    return Square("s", "s", cells), dict(zip(cells.values(), made, strict=True))


def test_interaction_by_hand():
    square, found = square_of(own_free=0.60, shared_free=0.90, own_ra=0.65, shared_ra=0.85)
    table = contrasts.interaction(square, found)
    assert table.constraint["own"].estimate == pytest.approx(0.05)
    assert table.constraint["shared"].estimate == pytest.approx(-0.05)
    assert table.sharing["free"].estimate == pytest.approx(0.30)
    assert table.sharing["archetypal"].estimate == pytest.approx(0.20)
    assert table.interaction.estimate == pytest.approx(-0.10)
    assert table.cells["shared", "free"].estimate == pytest.approx(0.90)
    scores = {name: each.stability for name, each in found.items()}
    combined = scores["shared archetypal"] - scores["own archetypal"] - scores["shared free"] + scores["own free"]
    assert table.interaction == pytest.approx(seed_interval(combined, np.zeros((5, 5))))
    assert table.interaction.low < -0.10 < table.interaction.high
    assert table.cells.keys() == square.arms.keys()


def test_the_interaction_takes_the_seeds_of_all_four_and_needs_each():
    square, found = square_of(0.6, 0.9, 0.65, 0.85)
    few = found | {"shared free": found["shared free"].of((4, 0, 2))}
    assert contrasts.interaction(square, few).seeds == (0, 2, 4)
    pair = contrasts.interaction(square, found | {"shared free": found["shared free"].of((4, 0))})
    assert pair.interaction.low is None
    assert contrasts.interaction(square, found | {"shared free": found["shared free"].of((4,))}) is None
    del found["own archetypal"]
    assert contrasts.interaction(square, found) is None


def test_squares_hold_the_arms_of_the_contrasts():
    for square, contrast in zip(SQUARES, PRIMARY, strict=True):
        assert square.arms["own", "archetypal"] == contrast.ra
        assert square.arms["own", "free"] == contrast.free
        assert square.arms["shared", "archetypal"] == contrast.published[0]


# --- probes ---


def probes(gain, tasks=30, seeds=6, task=0.02, seed=0.003, rest=0.01, start=0):
    """An arm whose AUC is 0.8 and a gain, with what tasks, seeds and both together bring."""
    generator = np.random.default_rng(start)
    auc = 0.8 + gain + task * generator.normal(size=(tasks, 1)) + seed * generator.normal(size=seeds)
    auc = auc + rest * generator.normal(size=(tasks, seeds))
    return ProbeOutcome(tuple(f"task {i}" for i in range(tasks)), tuple(range(seeds)), auc)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(0.05, Verdict.SUPPORTED), (-0.02, Verdict.NOT_SUPPORTED), (0.01, Verdict.UNDETERMINED)],
)
def test_the_probes_rule_reads_the_interval(gain, expected):
    ra, free = probes(gain, task=0.003), probes(0.0, task=0.003, start=1)
    found = decide_probes(CASE, {CASE.ra: ra, CASE.free: free})
    assert (found.verdict, found.tasks, found.seeds) == (expected, 30, tuple(range(6)))
    assert found.gain.estimate == pytest.approx((ra.auc - free.auc).mean())


def test_probes_are_paired_by_name_not_by_place():
    ra, free = probes(0.02), probes(0.0)  # the same tasks and seeds: all but the gain cancels
    mixed = ProbeOutcome(free.tasks[::-1], free.seeds[::-1], free.auc[::-1, ::-1])
    assert decide_probes(CASE, {CASE.ra: ra, CASE.free: mixed}).gain == pytest.approx((0.02, 0.02, 0.02))


def test_probes_of_other_tasks_are_refused_and_few_or_missing_ones_undetermined():
    ra, free = probes(0.1), probes(0.0, tasks=29)
    with pytest.raises(ValueError, match="one arm lacks: task 29"):
        decide_probes(CASE, {CASE.ra: ra, CASE.free: free})
    few = decide_probes(CASE, {CASE.ra: probes(0.1, seeds=2), CASE.free: probes(0.0, seeds=2)})
    assert (few.verdict, few.gain) == (Verdict.UNDETERMINED, None)
    missing = decide_probes(CASE, {CASE.ra: ra})
    assert (missing.verdict, missing.reason) == (Verdict.UNDETERMINED, f"not computed: {CASE.free}")
    with pytest.raises(ValueError, match="auc has the shape"):
        ProbeOutcome(("a",), (0, 1), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="no finite score"):
        ProbeOutcome(("a",), (0,), np.array([[np.nan]]))
    with pytest.raises(ValueError, match="give each once"):
        ProbeOutcome(("a", "a"), (0,), np.zeros((2, 1)))
