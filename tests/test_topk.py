"""The fast top-k against torch's own on exact pre-activations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archsae_core import topk


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


def test_few_entries_are_computed_again():
    x, weight, bias = problem(0, batch=64, d_model=256, n_features=4096)
    pre = (x.bfloat16() @ weight.bfloat16().T).add_(bias.bfloat16())
    bound = topk._bound(pre, 16, 64).float()
    starts, _ = topk._at_least(pre, (bound - 2 * topk._error(x, weight, bias, bound)).bfloat16())
    assert starts.diff().min() >= 16
    assert starts.diff().float().mean() < 200


def test_the_error_bound_holds():
    x, weight, bias = problem(1, batch=64, d_model=256)
    pre = (x.bfloat16() @ weight.bfloat16().T).add_(bias.bfloat16()).double()
    exact = x.double() @ weight.double().T + bias
    allowed = torch.cat([topk._error(x, weight, bias, column[:, None].float()) for column in pre.T], dim=1)
    assert ((pre - exact).abs() <= allowed).all()


@pytest.mark.parametrize("fast", [False, True])
def test_nan_comes_through(monkeypatch, fast):
    monkeypatch.setattr(topk, "fast_bfloat16", lambda: fast)
    x, weight, bias = problem(2)
    x[3] = torch.nan
    values, _ = topk.top_k(x, weight, bias, 4)
    assert values[3].isnan().all()
    assert values[[0, 1, 2]].isfinite().all()
