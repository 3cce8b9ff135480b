"""BatchTopK's choice against the dense definition: the k·batch largest of ReLU(x Wᵀ + b), wherever they are."""

import pytest
import torch

from archsae_core.kernels.batch_topk import above, batch_top_k


def dense(values, indices, n_features):
    return torch.zeros(len(values), n_features).scatter_(1, indices, values)


def problem(case):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(40, 16, generator=generator), torch.randn(96, 16, generator=generator)
    bias = torch.randn(96, generator=generator)
    if case == "one-token-takes-most":
        x[3] *= 50
    if case == "few-are-positive":
        bias -= 12
    return x, weight, bias


@pytest.mark.parametrize("k", [1, 3, 30])
@pytest.mark.parametrize("case", ["even", "one-token-takes-most", "few-are-positive"])
def test_choice_is_that_of_the_dense_definition(case, k):
    x, weight, bias = problem(case)
    values, indices = batch_top_k(x, weight, bias, k)
    pre = (x @ weight.T + bias).relu()
    kept = pre.flatten().topk(k * len(x))
    expected = torch.zeros(pre.numel()).scatter_(0, kept.indices, kept.values).view_as(pre)
    torch.testing.assert_close(dense(values, indices, 96), expected, rtol=1e-5, atol=1e-5)
    assert (values > 0).sum() == min(k * len(x), int((pre > 0).sum()))
    assert (values[:, -1] > 0).any() or values.shape[1] == 1  # no column that no token needs
    if case == "one-token-takes-most" and k == 3:
        assert values.shape[1] > 4 * k  # wider than what is looked at first


@pytest.mark.parametrize("threshold", [0.0, 2.0, 1e9])
@pytest.mark.parametrize("case", ["even", "one-token-takes-most"])
def test_above_is_every_entry_above_the_threshold(case, threshold):
    x, weight, bias = problem(case)
    values, indices = above(x, weight, bias, torch.tensor(threshold), 2)
    pre = (x @ weight.T + bias).relu()
    torch.testing.assert_close(dense(values, indices, 96), pre * (pre > threshold), rtol=1e-5, atol=1e-5)


def test_equal_entries_at_the_edge_are_not_too_many():
    values, _ = batch_top_k(torch.ones(6, 1), torch.ones(8, 1), torch.zeros(8), 2)
    assert int((values > 0).sum()) == 12
