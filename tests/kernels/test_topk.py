"""The fast top-k against torch's own on exact pre-activations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archsae_core.kernels import batch_topk, topk


def problem(seed, batch=40, d_model=32, n_features=256, scale=1.0, bias=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(batch, d_model, generator=generator)
    weight = torch.randn(n_features, d_model, generator=generator) * torch.rand(n_features, 1, generator=generator)
    return x, weight, bias + 0.1 * torch.randn(n_features, generator=generator)


@pytest.mark.parametrize("fast", [False, True])
@given(seed=st.integers(0, 2**16), k=st.sampled_from([1, 3, 4, 16]), bias=st.sampled_from([-20.0, 0.0, 5.0]))
def test_support_and_values_are_those_of_exact_arithmetic(fast, seed, k, bias):
    x, weight, shift = problem(seed, bias=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "fast_bfloat16", lambda: fast)
        values, indices = topk.top_k(x, weight, shift, k)
    exact = x.double() @ weight.double().T + shift
    assert torch.allclose(values.double(), exact.gather(1, indices), atol=1e-4)
    assert [len(set(row)) for row in indices.tolist()] == [k] * len(x)
    # the same support, up to features whose exact values are equal in float32
    assert (exact.gather(1, indices).amin(dim=1) >= exact.topk(k, dim=1).values[:, -1] - 1e-5).all()


@pytest.mark.parametrize("fast", [False, True])
def test_equal_values_take_no_more_than_k_places(monkeypatch, fast):
    monkeypatch.setattr(topk, "fast_bfloat16", lambda: fast)
    x, weight, bias = problem(0)
    weight, bias = weight[:32].repeat(8, 1), bias[:32].repeat(8)
    values, indices = topk.top_k(x, weight, bias, 4)
    exact = (x.double() @ weight.double().T + bias).topk(4, dim=1).values
    assert torch.allclose(values.double().sort(dim=1, descending=True).values, exact, atol=1e-4)
    assert [len(set(row)) for row in indices.tolist()] == [4] * len(x)


@pytest.mark.parametrize("fast", [False, True])
def test_tokens_with_fewer_values_above_zero_than_k_stand_beside_others(monkeypatch, fast):
    monkeypatch.setattr(topk, "fast_bfloat16", lambda: fast)
    x, weight, bias = problem(3, bias=-15.0)
    x[::3] *= 20
    values, indices = topk.top_k(x, weight, bias, 8)
    exact = x.double() @ weight.double().T + bias
    positive = (exact > 0).sum(dim=1)
    assert positive[::3].min() > 8 > positive[1::3].max()
    assert torch.allclose(values.double(), exact.gather(1, indices), atol=1e-4)
    assert torch.equal(indices.sort(dim=1).values, exact.topk(8, dim=1).indices.sort(dim=1).values)


def test_few_entries_are_computed_again():
    x, weight, bias = problem(0, batch=64, d_model=256, n_features=4096)
    counts = torch.from_numpy(topk._rescored(x, weight, bias, 16, 64).indptr).diff()
    assert counts.min() >= 16
    assert counts.float().mean() < 200


def rounded_product(x, weight, bias):
    """Largest error that `_rescored` allows for each of its pre-activations, and the error itself."""
    pre = torch.nn.functional.linear(weight.bfloat16(), x.bfloat16()).add_(bias.bfloat16()[:, None]).double()
    error = topk._error(topk._round(weight), topk._round(x)) + topk.TWICE_ROUNDED * bias.abs().max()
    exact = weight.double() @ x.double().T + bias.double()[:, None]
    return torch.stack([row - topk._within(row, error) for row in exact]), exact - pre


def test_the_error_bound_holds():
    allowed, error = rounded_product(*problem(1, batch=64, d_model=256))
    assert (error <= allowed).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_error_bound_holds_where_every_number_is_rounded_the_same_way(sign):
    worst = 1 + (2**-8 - sign * 2**-16)  # just below, or above, the middle between two numbers of bfloat16
    allowed, error = rounded_product(torch.full((2, 64), worst), torch.full((64, 64), worst), torch.full((64,), worst))
    assert (error.abs() > 0.9 * 64 * 2**-7).all()
    assert (error <= allowed).all()


@pytest.mark.parametrize("fast", [False, True])
def test_nan_comes_through(monkeypatch, fast):
    monkeypatch.setattr(topk, "fast_bfloat16", lambda: fast)
    x, weight, bias = problem(2)
    x[3] = torch.nan
    values, _ = topk.top_k(x, weight, bias, 4)
    assert values[3].isnan().all()
    assert values[[0, 1, 2]].isfinite().all()


@pytest.mark.parametrize("fast", [False, True])
def test_no_tokens_have_no_codes(monkeypatch, fast):
    monkeypatch.setattr(topk, "fast_bfloat16", lambda: fast)
    x, weight, bias = problem(0, batch=0)
    assert [found.shape for found in topk.top_k(x, weight, bias, 4)] == [(0, 4), (0, 4)]
    assert [found.shape for found in batch_topk.above(x, weight, bias, torch.tensor(0.1), 4)] == [(0, 1), (0, 1)]
    assert [found.shape for found in batch_topk.batch_top_k(x, weight, bias, 4)] == [(0, 1), (0, 1)]
