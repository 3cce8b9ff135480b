import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from archsae_core.metrics import matching, stability
from archsae_core.metrics.matching import Matching, cosines, greedy, match, mean_of
from archsae_core.metrics.stability import Side
from archsae_core.models.sae import Codes

pytestmark = pytest.mark.usefixtures("seeded")


def sides(n=40, d=8, shift=0.0):
    """Two different dictionaries with encoders, dead features and codes of the same 200 tokens."""
    made = []
    for _ in range(2):
        atoms = torch.randn(n, d) + shift
        codes = Codes(*torch.randn(200, n).topk(4, dim=1))
        made.append(Side(atoms, atoms + 0.5 * torch.randn(n, d), torch.rand(n) > 0.2, codes))
    return made


def permuted(side):
    order = torch.randperm(len(side.atoms))
    codes = Codes(side.codes.values, order.argsort()[side.codes.indices])
    return Side(side.atoms[order], side.encoder[order], side.alive[order], codes)


# --- cosines and matching ---


def test_cosines_by_hand():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[5.0, 5.0], [-1.0, 0.0]])
    assert cosines(a, b).tolist() == [pytest.approx([0.5**0.5, -1.0]), [0.0, 0.0]]


def test_centred_cosines_are_those_of_unit_atoms_less_their_mean():
    a, b = torch.randn(30, 6) * torch.rand(30, 1) + 2, torch.randn(20, 6) + 1
    a_c, b_c = (F.normalize(x, dim=1) - F.normalize(x, dim=1).mean(dim=0) for x in (a.double(), b.double()))
    expected = F.cosine_similarity(a_c[:, None], b_c[None], dim=2)
    assert torch.allclose(matching.centred_cosines(a, b).double(), expected, atol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-5])
def test_atoms_that_point_almost_the_same_way_keep_their_score(spread):
    common, noise = torch.randn(64), torch.randn(64, 64)
    a, b = (common + spread * (noise + 0.3 * torch.randn(64, 64)) for _ in range(2))
    a_c, b_c = (x - x.mean(dim=0) for x in (F.normalize(x.double(), dim=1) for x in (a, b)))
    similarity = F.cosine_similarity(a_c[:, None], b_c[None], dim=2).numpy()
    expected = similarity[linear_sum_assignment(similarity, maximize=True)].mean()
    assert stability.hungarian_centred(a, b) == pytest.approx(expected, abs=1e-6)
    assert stability.scores(Side(a), Side(b))["greedy_centred"] <= 1


def test_equal_atoms_have_nothing_left_of_their_mean():
    same = torch.randn(1, 16).repeat(5, 1)
    assert stability.hungarian_centred(same, same) == 0
    assert stability.collapse_corrected(same, torch.randn(5, 16)) == (0, 0, 0, (1, 5))


def test_units_do_not_matter():
    a, b = torch.randn(20, 6), torch.randn(20, 6)
    for name, value in stability.scores(Side(1e-25 * a), Side(1e15 * b)).items():
        assert value == pytest.approx(stability.scores(Side(a), Side(b))[name], abs=1e-6), name


def test_greedy_by_hand_in_both_directions():
    # rows: max 0.9 and 0.8; columns: max 0.9 and 0.2
    assert greedy(torch.tensor([[0.9, 0.1], [0.8, 0.2]])) == pytest.approx((0.85, 0.55))


def test_matching_by_hand_is_not_the_greedy_one():
    similarity = torch.tensor([[0.9, 0.8], [0.8, 0.1]])
    assert match(similarity).cols.tolist() == [1, 0]
    assert mean_of(similarity, match(similarity)) == pytest.approx(0.8)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (6, 6), (3, 6), (6, 3)])
def test_matching_is_the_best_of_all_permutations(shape):
    for _ in range(10):
        similarity = torch.randn(*shape)
        wide = similarity if shape[0] <= shape[1] else similarity.T
        permutations = itertools.permutations(range(wide.shape[1]), len(wide))
        best = max(sum(wide[i, j].item() for i, j in enumerate(cols)) for cols in permutations)
        found = match(similarity)
        assert len(found.rows.unique()) == len(found.cols.unique()) == min(shape)
        assert mean_of(similarity, found) * min(shape) == pytest.approx(best, abs=1e-5)


def hard_cases():
    a, b, mean = torch.randn(120, 8), torch.randn(120, 8), 3 * torch.randn(8)
    half = torch.cat([a[:60], b[60:]])[torch.randperm(120)]
    yield from (
        cosines(a, b),
        cosines(a, b).abs(),
        cosines(a + mean, b + mean),
        cosines(a, half),
        cosines(a[:70], half),
    )
    yield cosines(a, half[:70])


@pytest.fixture
def calls(monkeypatch):
    """Names of the parts of the candidate solver in the order in which they are called."""
    names = []
    for name in ("_auction", "min_weight_full_bipartite_matching"):
        part = getattr(matching, name)
        monkeypatch.setattr(matching, name, lambda *given, name=name, part=part: names.append(name) or part(*given))
    return names


def test_candidates_with_prices_give_the_dense_solver_s_optimum(monkeypatch, calls):
    monkeypatch.setattr(matching, "DENSE_BELOW", 0)
    monkeypatch.setattr(matching, "CANDIDATES", 6)  # too few at first, so that prices have to find the others
    monkeypatch.setattr(matching, "linear_sum_assignment", None)  # would fail if it were asked
    cases = list(hard_cases())
    for similarity in cases:
        rows, cols = linear_sum_assignment(similarity.numpy(), maximize=True)
        expected = similarity.numpy()[rows, cols].astype(float).mean()
        found = match(similarity)
        assert mean_of(similarity, found) == pytest.approx(expected, abs=1e-6)
        for like in (found.prices, torch.randn(similarity.shape[1]) / 20):  # prices are a start, never an answer
            assert mean_of(similarity, match(similarity, like)) == pytest.approx(expected, abs=1e-6)
    assert calls.count("min_weight_full_bipartite_matching") > 3 * len(cases)


def test_prices_of_a_similar_matching_stand_in_for_the_auction(calls):
    a, b = torch.randn(600, 24), torch.randn(600, 24)
    b[:300] = a[:300] + 0.7 * b[:300]
    cosine = cosines(a, b)
    centred, prices = matching.centred_cosines(a, b), match(cosine).prices
    calls.clear()
    match(centred, prices)
    assert calls == ["min_weight_full_bipartite_matching"]


@pytest.mark.parametrize("shape", [(700, 650), (650, 700), (700, 100)])
def test_rectangular_problems_are_solved_as_exactly(shape):
    a, b = torch.randn(shape[0], 24), torch.randn(shape[1], 24)
    similarity = cosines(a, b)
    rows, cols = linear_sum_assignment(similarity.numpy(), maximize=True)
    expected = similarity.numpy()[rows, cols].astype(float).mean()
    assert mean_of(similarity, match(similarity)) == pytest.approx(expected, abs=1e-6)


def test_ties_fall_back_to_the_dense_solver(monkeypatch):
    monkeypatch.setattr(matching, "DENSE_BELOW", 0)
    monkeypatch.setattr(matching, "CANDIDATES", 2)
    similarity = cosines(torch.cat([torch.zeros(90, 8), torch.randn(30, 8)]), torch.randn(120, 8))
    rows, cols = linear_sum_assignment(similarity.numpy(), maximize=True)
    found = match(similarity)
    assert len(found.cols.unique()) == 120
    assert mean_of(similarity, found) == pytest.approx(similarity.numpy()[rows, cols].mean(), abs=1e-6)


# --- scores ---


def test_equal_dictionaries_score_one():
    a, _ = sides()
    compared = stability.compare(a, permuted(a))
    assert compared["chance"]["hungarian"] < 0.9
    assert compared["raw"] == pytest.approx(dict.fromkeys(compared["raw"], 1.0), abs=1e-5)
    assert compared["normalised"] == pytest.approx(dict.fromkeys(compared["raw"], 1.0), abs=1e-5)


def test_permuting_atoms_changes_no_score():
    a, b = sides()
    before, after = stability.scores(a, b), stability.scores(permuted(a), permuted(b))
    assert len(before) == 13
    assert before == pytest.approx(after, abs=1e-6)


def test_scaling_atoms_changes_no_score():
    a, b = sides()
    scaled = b._replace(atoms=b.atoms * torch.rand(40, 1) * 9, encoder=b.encoder * 0.1)
    assert stability.scores(a, b) == pytest.approx(stability.scores(a, scaled), abs=1e-5)


def test_flipped_atoms_are_other_features_except_for_pw_mcc():
    a = Side(torch.eye(4))
    found = stability.scores(a, Side(-torch.eye(4)))
    assert found["pw_mcc"] == 1
    assert found["hungarian"] == 0  # no pair of atoms is better than orthogonal


def test_a_common_mean_inflates_only_the_uncentred_scores():
    a, b = (torch.randn(60, 32) for _ in range(2))
    shift = 20 * torch.randn(32)
    plain, shifted = stability.scores(Side(a), Side(b)), stability.scores(Side(a + shift), Side(b + shift))
    assert shifted["hungarian"] > 0.99
    assert shifted["hungarian_centred"] == pytest.approx(plain["hungarian_centred"], abs=0.1)


def test_the_one_score_alone_is_the_same():
    a, b = sides()
    assert stability.hungarian_centred(a.atoms, b.atoms) == stability.scores(a, b)["hungarian_centred"]


def test_dead_features_do_not_count_among_alive_ones():
    a = torch.eye(6)
    b = a.clone()
    b[0] = torch.ones(6)
    alive = torch.tensor([False] + [True] * 5)
    found = stability.scores(Side(a, alive=alive), Side(b, alive=alive))
    assert found["hungarian"] < 1
    assert found["hungarian_alive"] == found["greedy_alive"] == 1
    # unequal numbers: five alive atoms find their partners among six
    assert stability.scores(Side(a, alive=alive), Side(a))["hungarian_alive"] == 1


def test_nothing_alive_scores_zero():
    found = stability.scores(Side(torch.eye(3), alive=torch.zeros(3, dtype=torch.bool)), Side(torch.eye(3)))
    assert found["greedy_alive"] == found["hungarian_alive"] == found["hungarian_centred_alive"] == 0


def test_zero_atoms_match_nothing():
    found = stability.scores(Side(torch.tensor([[1.0, 0.0], [0.0, 0.0]])), Side(torch.eye(2)))
    assert found["hungarian"] == 0.5


def test_encoder_cosine_is_taken_under_the_decoder_s_matching():
    swapped = torch.eye(2)[[1, 0]]
    found = stability.scores(Side(torch.eye(2), torch.eye(2)), Side(torch.eye(2), swapped))
    assert (found["hungarian"], found["encoder_cosine"], found["shared"]) == (1, 0, 0)


def test_shared_needs_both_cosines_and_the_same_partner():
    at = {angle: [math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0] for angle in (0, 30, 60)}
    decoder = torch.tensor([at[0], [0, 0, 1.0]])
    similar, far = (torch.tensor([at[angle], [0, 0, 1.0]]) for angle in (30, 60))  # cosines 0.87 and 0.5
    assert stability.scores(Side(decoder, decoder), Side(similar, similar))["shared"] == 1
    assert stability.scores(Side(decoder, decoder), Side(far, similar))["shared"] == 0.5
    assert stability.scores(Side(decoder, decoder), Side(similar, far))["shared"] == 0.5
    near, crossed = torch.tensor([at[0], at[30]]), torch.tensor([at[30], at[0]])  # crosswise 1, straight 0.87
    assert stability.scores(Side(torch.eye(2), near), Side(torch.eye(2), crossed))["shared"] == 0


def test_firing_correlation_is_pearson_s_over_pairs_that_fire():
    a, b = (Codes(*torch.randn(300, 6).relu().topk(3, dim=1)) for _ in range(2))
    b = Codes(torch.cat([a.values[:150], b.values[150:]]), torch.cat([a.indices[:150], b.indices[150:]]))
    cols = torch.tensor([2, 0, 1, 4, 3, 5])
    x, y = a.dense(6).numpy(), b.dense(6).numpy()[:, cols]
    expected = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(6)])
    # feature 6 never fires on either side, feature 7 only in a: left out, and 0
    a = Codes(torch.cat([a.values, torch.arange(300.0)[:, None]], dim=1), F.pad(a.indices, (0, 1), value=7))
    pairs = Matching(torch.arange(8), torch.cat([cols, torch.tensor([6, 7])]))
    assert stability.firing_correlation(a, b, pairs, 8, 8) == pytest.approx(expected * 6 / 7, abs=1e-9)


# --- chance ---


def test_gamma_by_hand():
    # mean (3, 0), both atoms 1 away from it
    assert stability.gamma(torch.tensor([[3.0, 1.0], [3.0, -1.0]])) == 3


@pytest.mark.parametrize("covariance", [True, False])
def test_unrelated_atoms_have_the_same_moments(covariance):
    rows = torch.randn(3000, 3) * torch.tensor([1.0, 0.3, 0.1]) + torch.tensor([2.0, 0.0, 1.0])
    side = Side(rows, rows.flip(1))
    drawn = stability.unrelated(side, 0, covariance=covariance)
    unit, both = F.normalize(rows, dim=1), torch.cat([drawn.atoms, drawn.encoder], dim=1)
    assert torch.allclose(drawn.atoms.mean(dim=0), unit.mean(dim=0), atol=0.02)
    expected = torch.cat([unit, F.normalize(side.encoder, dim=1)], dim=1).T.cov()
    if not covariance:
        expected = torch.eye(6) * expected[:3, :3].trace() / 3
    assert torch.allclose(both.T.cov(), expected, atol=0.01)


@pytest.mark.parametrize(("mean", "measured"), [(0.0, 0.13), (1.0, 0.57), (2.0, 0.83)])
def test_chance_of_the_greedy_score_is_the_measured_one(mean, measured):
    # 4096 unrelated atoms in 768 dimensions at γ = 0, 1, 2
    start = torch.randn(4096, 768) + mean * F.normalize(torch.randn(768), dim=0) * 768**0.5
    a, b = (stability.unrelated(Side(start), seed, covariance=False).atoms for seed in (0, 1))
    assert stability.gamma(a) == pytest.approx(mean, abs=0.06)
    assert greedy(cosines(a, b))[0] == pytest.approx(measured, abs=0.015)


def test_unrelated_dictionaries_score_zero_after_normalisation():
    a, b = sides(n=300, d=24, shift=0.5)
    found = stability.compare(a, b)
    assert found["raw"]["hungarian"] > 0.3
    assert found["normalised"] == pytest.approx(dict.fromkeys(found["raw"], 0.0), abs=0.05)


def test_chance_is_seeded_and_can_be_shared():
    a, b = sides()
    chance = stability.chance_levels(a, b, seed=3)
    assert chance == stability.chance_levels(a, b, seed=3) != stability.chance_levels(a, b, seed=4)
    assert stability.chance_levels(a, a)["hungarian"] < 0.9  # two draws, even from equal dictionaries
    found = stability.compare(a, b, chance=chance)
    assert found["chance"] == chance
    s, s0 = found["raw"]["pw_mcc"], chance["pw_mcc"]
    assert found["normalised"]["pw_mcc"] == (s - s0) / (1 - s0)


def test_chance_normalised_by_hand():
    assert stability.chance_normalised(0.75, 0.5) == 0.5
    assert stability.chance_normalised(1.0, 1.0) == 0.0
    assert stability.chance_normalised(np.array([0.5, 0.75]), 0.5).tolist() == [0.0, 0.5]


def test_every_score_says_what_it_compares():
    a, b = sides()
    assert stability.scores(a, b).keys() == stability.SCORES.keys()


def test_comparison_is_json_and_names_sizes():
    a, b = sides()
    found = stability.compare(a, b)
    json.dumps(found, allow_nan=False)
    assert found["raw"].keys() == found["chance"].keys() == found["normalised"].keys()
    assert (found["n_a"], found["alive_b"]) == (40, int(b.alive.sum()))


def test_without_encoder_and_codes_their_scores_are_absent():
    a, b = sides()
    bare = stability.scores(a._replace(encoder=None, codes=None), b)
    assert stability.scores(a, b).keys() - bare.keys() == {"encoder_cosine", "shared", "firing_correlation"}


def test_cosine_with_start_by_hand():
    start = torch.eye(2)
    assert stability.cosine_with_start(start, 3 * start) == 1
    assert stability.cosine_with_start(start, torch.tensor([[5.0, 0.0], [1.0, 0.0]])) == 0.5
    assert stability.cosine_with_start(start, 1e-30 * start) == pytest.approx(1)


# --- collapse ---


def test_agreement_by_copies_is_corrected():
    """Half of either dictionary is copies of one atom that both have; the other half is unrelated."""
    common = torch.randn(1, 32)
    a, b = (torch.cat([torch.randn(100, 32), common + 0.001 * torch.randn(100, 32)]) for _ in range(2))
    copies = stability.hungarian_centred(a, b)
    found = stability.collapse_corrected(a, b)
    assert copies > 0.6
    assert found.distinct == (101, 101)
    assert found.raw < 0.45
    assert abs(found.normalised) < 0.1


def test_without_duplicates_the_corrected_score_is_the_headline_one():
    a, b = sides(n=60, d=16)
    b = a._replace(atoms=a.atoms + 0.5 * b.atoms)
    found = stability.collapse_corrected(a.atoms, b.atoms)
    unrelated = [stability.unrelated(Side(side.atoms), seed).atoms for seed, side in enumerate((a, b))]
    chance = stability.hungarian_centred(*unrelated)
    assert found.raw == pytest.approx(stability.hungarian_centred(a.atoms, b.atoms), abs=1e-6)
    assert found.chance == pytest.approx(chance, abs=1e-6)
    assert found.normalised == pytest.approx(stability.chance_normalised(found.raw, found.chance))
    assert found.distinct == (60, 60)


def test_unequal_numbers_of_copies_do_not_hide_equal_features():
    distinct = torch.randn(30, 16)
    a, b = torch.cat([distinct, distinct[:1].repeat(30, 1)]), torch.cat([distinct, distinct[1:2].repeat(30, 1)])
    found = stability.collapse_corrected(a, b)
    assert found.distinct == (30, 30)
    assert found.normalised == pytest.approx(1, abs=1e-5)
    assert stability.hungarian_centred(a, b) < 0.8


def test_a_feature_that_a_token_names_twice_has_the_sum():
    """As in `Codes.dense`."""
    once = Codes(torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 1.0]]), torch.tensor([[0, 1], [0, 1], [0, 1]]))
    twice = Codes(torch.tensor([[1.0, 2.0], [1.0, 0.0], [2.0, 1.0]]), torch.tensor([[0, 0], [0, 1], [0, 1]]))
    atoms = torch.eye(2)
    sides = [Side(atoms, codes=codes) for codes in (once, twice)]
    found = [stability.scores(one, sides[0])["firing_correlation"] for one in sides]
    assert found == [1.0, 1.0]
