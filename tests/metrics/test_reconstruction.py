import json

import numpy as np
import pytest
import sklearn.metrics
import torch
from toy import unit_sae

from archsae_core.metrics import reconstruction as metrics
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE

pytestmark = pytest.mark.usefixtures("seeded")


def test_r2_by_hand():
    # mean (1, 2): Σ‖x − x̄‖² = 1 + 4 + 1 + 4; the only error is 4 − 2
    assert metrics.r2(torch.tensor([[0.0, 0.0], [2.0, 4.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])) == 1 - 4 / 10


def test_predicting_the_mean_scores_zero_even_where_the_mean_is_large():
    x = torch.randn(200, 4) + torch.tensor([100.0, -50.0, 0.0, 0.0])
    assert metrics.r2(x, x.mean(dim=0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert metrics.r2(x, x + 2.0) < -2  # a constant offset is not forgiven


def test_r2_agrees_with_scikit_learn():
    x, x_hat = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.2]) + 3, torch.randn(50, 3) + 3
    theirs = sklearn.metrics.r2_score(x.numpy(), x_hat.numpy(), multioutput="variance_weighted")
    assert metrics.r2(x, x_hat) == pytest.approx(theirs, rel=1e-6)


def test_r2_of_equal_activations_is_an_error():
    with pytest.raises(ValueError, match="all activations are equal"):
        metrics.r2(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="all activations are equal"):
        metrics.quality(unit_sae(2, 2), [torch.ones(3, 2)])


def test_quality_by_hand():
    # k = 1 keeps the larger coordinate: x̂ = (3, 0), (0, 2); features 2 and 3 read −x and never fire.
    found = metrics.quality(unit_sae(4, 2), [torch.tensor([[3.0, 1.0], [1.0, 2.0]])])
    assert found.r2 == pytest.approx(1 - 2 / 2.5)
    assert found.mse == found.mse_normalised == pytest.approx(2 / 4)
    assert found.l0 == 1
    assert found.cosine == pytest.approx((3 / 10**0.5 + 2 / 5**0.5) / 2)
    assert (found.n_dead, found.dead_share, found.utilisation, found.dense_share) == (2, 0.5, 0.5, 0.5)
    assert (found.n_tokens, found.n_features) == (2, 4)


def test_codes_that_relu_made_zero_do_not_fire():
    found = metrics.quality(unit_sae(2, 2, k=2), [torch.tensor([[3.0, -1.0], [1.0, -2.0]])])
    assert (found.l0, found.n_dead) == (1, 1)


def test_units_and_centring():
    # mean (2, 2), scale 0.5: x_n = (2, −0.5) → x̂_n = (2, 0) → x̂ = (6, 2); and (−0.5, 1.5) → x̂ = (2, 5)
    found = metrics.quality(unit_sae(2, 2, mean=2.0, scale=0.5), [torch.tensor([[6.0, 1.0], [1.0, 5.0]])])
    assert found.mse == pytest.approx(2 / 4)
    assert found.mse_normalised == pytest.approx(0.25 * 2 / 4)
    assert found.cosine_centred == pytest.approx((4 / 17**0.5 + 3 / 10**0.5) / 2)


def test_scores_in_the_raw_frame_are_of_the_same_residuals_and_centred_by_the_training_mean():
    # training mean (2, 2), scale 0.5, nothing subtracted: x_n = (3, 0.5) → x̂ = (6, 0); and (0.5, 2.5) → x̂ = (0, 5)
    sae = SAE(FreeDictionary(torch.eye(2)), 1, torch.full((2,), 2.0), 0.5, "raw")
    x = torch.tensor([[6.0, 1.0], [1.0, 5.0]])
    found = metrics.quality(sae, [x])
    assert sae(x).tolist() == [[6.0, 0.0], [0.0, 5.0]]
    assert found.r2 == pytest.approx(1 - 2 / (2 * (2.5**2 + 2**2)))  # around x̄ = (3.5, 3)
    assert found.mse_normalised == pytest.approx(0.25 * 2 / 4)
    assert found.cosine == pytest.approx((6 / 37**0.5 + 5 / 26**0.5) / 2)
    assert found.cosine_centred == pytest.approx((18 / (17 * 20) ** 0.5 + 11 / (10 * 13) ** 0.5) / 2)


def test_streaming_equals_one_pass():
    sae, x = unit_sae(8, 4, k=2, mean=30.0, scale=0.3), torch.randn(101, 4) * 3 + 31
    whole, parts = metrics.quality(sae, [x]), metrics.quality(sae, x.split(17))
    assert whole.density == parts.density
    assert whole[:-1] == pytest.approx(parts[:-1])
    assert whole.r2 == pytest.approx(metrics.r2(x, sae(x)), rel=1e-6)
    assert whole.mse == pytest.approx(torch.nn.functional.mse_loss(sae(x), x).item(), rel=1e-6)


def test_documents_may_spread_over_batches():
    sae, x = unit_sae(4, 4, mean=1.0), torch.randn(30, 4) + 5
    document = torch.tensor([7] * 12 + [3] * 18, dtype=torch.int32)
    found = metrics.document_sums(sae, zip(x.split(10), document.split(10), strict=True))
    assert found.documents.tolist() == [3, 7]
    assert found.sums[:, 0].tolist() == [18, 12]
    error = (x - sae(x)).square().sum(dim=1)
    assert found.sums[:, 1] == pytest.approx([error[12:].sum().item(), error[:12].sum().item()], rel=1e-6)
    variation = (x - x.mean(dim=0)).square().sum(dim=1)
    assert found.sums[:, 2] == pytest.approx([variation[12:].sum().item(), variation[:12].sum().item()], rel=1e-5)


def test_intervals_are_json_and_hold_the_score():
    x = torch.randn(90, 4)
    batches = zip(x.split(9), torch.arange(10).repeat_interleave(9).split(9), strict=True)
    sums = metrics.document_sums(unit_sae(4, 4), batches)
    intervals = metrics.quality_intervals(sums)
    json.dumps(intervals, allow_nan=False)
    assert set(intervals) == {"r2", "mse", "mse_normalised", "l0", "cosine", "cosine_centred"}
    assert intervals["r2"][0] < metrics.summarise(sums).r2 < intervals["r2"][1]


def test_no_activations_is_an_error():
    with pytest.raises(ValueError, match="no activations"):
        metrics.quality(unit_sae(2, 2), [])


def test_density_histogram():
    # of 1000 tokens: never, once (−3), 10 times (−2), always (0: the last bin is closed)
    found = metrics.density(np.array([0, 1, 10, 1000]), 1000)
    counts = dict(zip(found["edges"], found["counts"], strict=False))
    assert {edge for edge, count in counts.items() if count} == {-3.0, -2.0, -0.25}
    assert sum(found["counts"]) == 3


MEAN = [[1.0, 1.0], [9.0, 3.0]]
"""Sums and tokens of two documents: means 1 and 3, pooled 10 / 4."""


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def test_bootstrap_draws_whole_documents():
    # Two draws of two documents: both the first (1/4), one each (1/2), both the second (1/4).
    assert metrics.bootstrap_interval(np.array(MEAN), mean) == (1.0, 3.0)
    assert metrics.bootstrap_interval(np.array(MEAN), mean, level=0.4) == (2.5, 2.5)


def test_bootstrap_is_seeded_and_narrows():
    values = np.stack([np.random.default_rng(0).normal(size=400), np.ones(400)], axis=1)
    first = metrics.bootstrap_interval(values, mean)
    assert first == metrics.bootstrap_interval(values, mean)
    assert first != metrics.bootstrap_interval(values, mean, seed=1)
    assert first[1] - first[0] == pytest.approx(2 * 1.96 / 400**0.5, rel=0.15)


def test_no_interval_from_one_document_or_an_undefined_statistic():
    assert metrics.bootstrap_interval(np.array(MEAN[:1]), mean) is None
    assert metrics.bootstrap_interval(np.array(MEAN), lambda sums: np.full(len(sums), np.nan)) is None
