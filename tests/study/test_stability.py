"""The comparison of arms by hand: scores of pairs, what the contrasts are given, agreement between arms."""

import numpy as np
import pytest
import torch

from archsae_core.metrics import stability as metrics
from archsae_core.metrics.stability import HEADLINE
from archsae_core.metrics.structure import collapse
from archsae_study.engine.typed import from_json, to_json
from archsae_study.experiments.stability import ArmResult, AtStep, Score, StabilityResult, headline_matrix


def at(step, score, r2, cosine, seeds=3):
    off = score * (1 - np.eye(seeds))
    return AtStep(step, 1024 * step, [r2] * seeds, [cosine] * seeds, off.tolist())


def arm(key, score, r2=0.8, cosine=0.7, seeds=3):
    raw = (0.2 + 0.8 * score) * (1 - np.eye(seeds))
    scores = {HEADLINE: Score(raw.tolist(), 0.2), "hungarian": Score(raw.tolist(), 0.5)}
    path = [at(0, 0.7, 0.1, 1.0, seeds), at(10, score, r2, cosine, seeds)]
    atoms = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    return ArmResult(
        key, list(range(seeds)), [r2] * seeds, [1.0] * seeds, [0.1] * seeds, [4.0] * seeds, [0.0] * seeds, None,
        [cosine] * seeds, None, None, collapse(atoms), path[-1].stability, scores, scores, path,
    )  # fmt: skip


def test_a_score_less_chance_is_0_for_chance_and_1_for_identity():
    found = Score([[0.0, 0.2, 1.0], [0.2, 0.0, 0.6], [1.0, 0.6, 0.0]], 0.2).normalised
    assert found[0, 1] == pytest.approx(0)
    assert found[0, 2] == pytest.approx(1)
    assert found[1, 2] == pytest.approx(0.5)


def test_the_interval_is_over_pairs_of_different_seeds():
    found = arm("ra-own", 0.5).end[HEADLINE].interval()
    assert (found.estimate, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert arm("ra-own", 0.5).end[HEADLINE].interval(normalised=False).estimate == pytest.approx(0.6)


def test_headline_matrix_is_the_core_s_score_less_chance(seeded):
    a, b = torch.randn(40, 16), torch.randn(40, 16)
    matrix = np.array(headline_matrix([a, b, a]))
    assert matrix[0, 2] == pytest.approx(1, abs=1e-5)
    unrelated = [metrics.unrelated(metrics.Side(found), seed).atoms for seed, found in enumerate((a, b))]
    chance = metrics.hungarian_centred(*unrelated)
    assert matrix[0, 1] == pytest.approx(metrics.chance_normalised(metrics.hungarian_centred(a, b), chance))
    assert np.array_equal(matrix, matrix.T)


def test_what_the_contrasts_are_given_is_what_was_measured():
    one = arm("ra-own", 0.5, r2=0.75, cosine=0.6)
    outcome = one.outcome()
    assert outcome.seeds == (0, 1, 2)
    assert outcome.stability[0, 1] == pytest.approx(0.5)
    assert outcome.r2 == (0.75,) * 3
    assert outcome.cosine_with_start == (0.6,) * 3
    path = one.path()
    assert [kept.step for kept in path.kept] == [0, 10]
    assert path.kept[-1].stability[0, 1] == pytest.approx(0.5)


def test_decisions_name_the_contrasts_in_order_and_say_what_is_missing():
    result = StabilityResult([arm("ra-own", 0.8), arm("topk-kmeans-own", 0.5)], [])
    first, *others = result.decisions()
    assert (first.contrast.key, first.gain.estimate) == ("g1", pytest.approx(0.3))
    assert first.verdict == "supported"
    assert all("not computed" in one.reason for one in others)


def test_a_single_seed_gives_no_decision_and_no_error():
    lone = arm("ra-own", 0.5, seeds=1)
    result = StabilityResult([lone, arm("topk-kmeans-own", 0.5)], [])
    assert "not computed: ra-own" in result.decisions()[0].reason


def test_equal_terms_are_read_along_training():
    result = StabilityResult([arm("ra-own", 0.8, r2=0.8), arm("topk-kmeans-own", 0.5, r2=0.9)], [])
    found = result.on_equal_terms()["g1"]["r2"]
    assert found.target == pytest.approx(0.8)
    assert found.first == pytest.approx(0.8)
    assert found.second == pytest.approx(0.7 + (0.8 - 0.1) / (0.9 - 0.1) * (0.5 - 0.7))


def test_results_are_the_same_after_json():
    result = StabilityResult([arm("ra-own", 0.8)], [])
    assert to_json(from_json(to_json(result), StabilityResult)) == to_json(result)
