"""What the published gain is made of, and the claims and sentences that rest on the table of arms."""

from itertools import combinations

import pytest

from archsae_study.arms import ARMS
from archsae_study.experiments import claims, verdict
from archsae_study.pages import prose, sweep_prose

SCORES = {"topk": 0.3, "topk-kmeans": 0.9, "topk-kmeans-indep": 0.5, "ra": 0.8, "ra-indep-anchors": 0.6}


def arm(name, score, n_seeds, r2=0.8):
    """A row of the table of arms whose pairs of seeds all have one score."""
    pairs = [
        {"seeds": list(pair), "raw": {"hungarian": score}, "normalised": {"hungarian": score}}
        for pair in combinations(range(n_seeds), 2)
    ]
    scores = {"hungarian": {kind: {"estimate": score} for kind in ("raw", "normalised")}}
    end = {"pairs": pairs, "scores": scores}
    return {"label": ARMS[name].label, "r2": r2, "r2_by_seed": [r2] * n_seeds, "end": end}


def table_of(**changes):
    scores = SCORES | {name.replace("_", "-"): score for name, score in changes.items()}
    rows = {name: arm(name, score, 3 if ARMS[name].control else 5) for name, score in scores.items()}
    return {"headline": "hungarian", "arms": rows, "by_metric": []}


def test_the_parts_add_up_to_the_published_gain():
    own, constraint, shared, published, same_start = verdict.decomposition(table_of()["arms"], "hungarian")
    assert own.gain.estimate + constraint.gain.estimate + shared.gain.estimate == pytest.approx(published.gain.estimate)
    assert (published.before, published.after, published.gain.estimate) == ("topk", "ra", pytest.approx(0.5))
    assert (same_start.gain.estimate, same_start.seeds, own.seeds) == (pytest.approx(-0.1), 3, 5)


def test_missing_arms_leave_their_parts_out():
    table = table_of()
    del table["arms"]["topk-kmeans"], table["arms"]["ra-indep-anchors"]
    assert [(step.before, step.after) for step in verdict.decomposition(table["arms"], "hungarian")] == [
        ("topk", "topk-kmeans-indep"),
        ("topk", "ra"),
    ]
    assert sweep_prose.decomposition_table(table).count("\n") == 3


def test_the_table_has_every_part():
    text = sweep_prose.decomposition_table(table_of())
    assert "| RA-SAE, own anchors | RA-SAE, shared anchors | 0.200 [0.200, 0.200] | 5 |" in text
    assert "| -0.100 [-0.100, -0.100] | 3 |" in text


@pytest.mark.parametrize(("free", "outcome"), [(0.82, "match"), (0.9, "partly"), (0.7, "partly"), (0.99, "no")])
def test_about_as_stable_fails_on_either_side(free, outcome):
    assert claims.initialisation_suffices({"stability": table_of(topk_kmeans=free)}).outcome == outcome


@pytest.mark.parametrize(
    ("said", "high", "outcome"),
    [
        ("supported", 0.3, "no"),
        ("explained by shared initialisation", 0.04, "match"),
        ("undetermined", 0.06, "partly"),
        ("undetermined", 0.4, "not testable here"),
        ("undetermined", None, "not testable here"),
    ],
)
def test_the_dispute_is_graded_by_the_rule_and_by_what_is_left(said, high, outcome):
    gains = {"published_gain": {"estimate": 0.5}, "independent_gain": {"estimate": 0.04, "high": high}}
    claim = claims.artefact({"stability": {"verdict": {"verdict": said} | gains}})
    assert claim.outcome == outcome
    assert claim.ours == f"{said}; 0.040 of 0.500 is left without it"


def test_scores_are_counted_once_and_named():
    rows = [("a", "explained"), ("b", "undetermined"), ("c", "undetermined")]
    by_metric = [
        {"metric": name, "kind": kind, "verdict": said} for name, said in rows for kind in ("raw", "normalised")
    ]
    text = sweep_prose.by_metric({"verdict": {"verdict": "undetermined"}, "by_metric": by_metric})
    assert text == "**2 of 3 scores lead to the headline's conclusion** (b, c); *explained* from a."


def test_free_dictionaries_that_beat_radii_in_both_goals_are_named():
    def row(delta, r2, stability):
        return {"arm": "ra", "delta": delta, "r2": r2, "stability": stability, "flags": []}

    references = [
        {"arm": "topk-kmeans", "label": "free, from centroids", "r2": 0.86, "stability": 0.9},
        {"arm": "topk", "label": "free", "r2": 0.9, "stability": None},
        {"arm": "frozen", "label": "frozen", "r2": 0.99, "stability": 1.0},
    ]
    rows = [row(0.0, 0.8, 0.85), row(1.0, 0.85, 0.95), row(5.0, 0.87, 0.7)]
    table = {"rows": rows, "references": references, "pareto": [1.0, 5.0], "best_delta": 5.0, "median_norm": 10.0}
    text = prose.ablation(table)
    assert "at δ = 5**, the largest tried (R² 0.870, stability 0.700; 50%" in text
    assert "the worst at δ = 0 (R² 0.800, stability 0.850)" in text
    assert "*free, from centroids* beats 0 in both. *free* beats none in both. Flagged" in text
