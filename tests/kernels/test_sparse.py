"""The sparse kernels against a dense reference under autograd, in float64 where the kernel allows it."""

import pytest
import torch

from archsae_core.kernels import processor
from archsae_core.kernels import sparse as kernels

BATCH, FEATURES, D_MODEL, K = 33, 40, 12, 5


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    shift = 0.3 * torch.randn(D_MODEL, generator=generator)
    weight = torch.randn(FEATURES, D_MODEL, generator=generator)
    bias = 0.3 * torch.randn(FEATURES, generator=generator) - 1.0
    atoms = torch.randn(FEATURES, D_MODEL, generator=generator)
    return [tensor.requires_grad_() for tensor in (shift, weight, bias, atoms)]


@pytest.fixture
def data():
    return torch.randn(BATCH, D_MODEL, generator=torch.Generator().manual_seed(2))


def dense_reconstruction(shift, weight, bias, atoms, data):
    pre = (data - shift) @ weight.T + bias
    values, indices = pre.topk(K, dim=1)
    return torch.zeros_like(pre).scatter(1, indices, values.relu()) @ atoms


def sparse_reconstruction(shift, weight, bias, atoms, data):
    with torch.no_grad():
        pre = kernels.linear(data - shift, weight) + bias
        values, indices = pre.topk(K, dim=1, sorted=False)
    grouped = kernels.group_by_feature(indices, FEATURES)
    values = kernels.select(values, (data - shift).detach(), shift, weight, bias, indices, grouped)
    return kernels.decode(values, indices, atoms, grouped)


def test_values_and_gradients_match_dense_autograd(problem, data):
    target = torch.randn(BATCH, D_MODEL, generator=torch.Generator().manual_seed(1))
    expected = dense_reconstruction(*problem, data)
    wanted = torch.autograd.grad((expected - target).square().sum(), problem)
    found = sparse_reconstruction(*problem, data)
    gradients = torch.autograd.grad((found - target).square().sum(), problem)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for gradient, reference in zip(gradients, wanted, strict=True):
        assert (gradient - reference).norm() <= 1e-5 * reference.norm()


def test_group_by_feature_by_hand():
    grouped = kernels.group_by_feature(torch.tensor([[2, 0], [0, 3]]), 4)
    assert grouped.offsets.tolist() == [0, 2, 2, 3]
    assert grouped.order.tolist() == [1, 2, 0, 3]
    assert grouped.token.tolist() == [0, 1, 0, 1]


def test_transposed_product_by_hand():
    indices, values = torch.tensor([[0, 2], [2, 1]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    product = kernels.transposed_product(values, kernels.group_by_feature(indices, 3), x)
    assert product.tolist() == [[1.0, 10.0], [400.0, 4000.0], [302.0, 3020.0]]


@pytest.mark.parametrize("columns", [5, D_MODEL])
def test_sampled_product_adds_up_blocks_of_columns(monkeypatch, problem, data, columns):
    monkeypatch.setattr(kernels, "SAMPLED_COLUMNS", columns)
    rows, indices = problem[3].detach(), torch.randint(FEATURES, (BATCH, K), generator=torch.Generator().manual_seed(5))
    found = kernels.sampled_product(data, rows, indices, kernels.group_by_feature(indices, FEATURES))
    torch.testing.assert_close(found, (data @ rows.T).gather(1, indices))


def test_product_and_its_gradient(problem):
    weights, points = problem[1], problem[3].detach()[:D_MODEL]
    found = torch.autograd.grad(kernels.product(weights, points).square().sum(), weights)[0]
    wanted = torch.autograd.grad((weights @ points).square().sum(), weights)[0]
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_unit_rows_and_their_gradient(problem):
    rows, weight = problem[3], torch.randn(FEATURES, D_MODEL, generator=torch.Generator().manual_seed(3))
    found, wanted = kernels.unit_rows(rows), torch.nn.functional.normalize(rows, dim=1)
    assert torch.allclose(found, wanted)
    gradients = [torch.autograd.grad((unit * weight).sum(), rows)[0] for unit in (found, wanted)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_linear_is_exact_fp32(problem, data):
    x, weight = data, problem[1].detach()
    assert torch.allclose(kernels.linear(x, weight), x @ weight.T, rtol=1e-5, atol=1e-6)


def test_a_code_below_zero_gets_no_gradient():
    x, weight = torch.ones(1, 1), torch.tensor([[1.0], [-1.0]], requires_grad=True)
    bias, indices = torch.zeros(2, requires_grad=True), torch.tensor([[0, 1]])
    grouped = kernels.group_by_feature(indices, 2)
    values = kernels.select(x @ weight.detach().T, x, torch.zeros(1), weight, bias, indices, grouped)
    values.sum().backward()
    assert values.tolist() == [[1.0, 0.0]]
    assert weight.grad.tolist() == [[1.0], [0.0]]
    assert bias.grad.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_do_not_fit_the_cache_are_summed_by_blocks_of_columns_to_the_same_bits(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(FEATURES, 3 * kernels.COLUMNS, generator=generator).to(dtype)
    values, indices = (
        torch.rand(BATCH, K, generator=generator),
        torch.randint(FEATURES, (BATCH, K), generator=generator),
    )
    found = []
    for size in (2**30, 0):
        monkeypatch.setattr(kernels, "cache_bytes", lambda size=size: size)
        found.append(kernels.weighted_rows(values, indices, rows))
    assert found[0].dtype == torch.float32
    assert torch.equal(*found)
    wanted = (values[:, :, None] * rows.float()[indices]).sum(dim=1)
    assert (found[0] - wanted).norm() <= (1e-6 if dtype == torch.float32 else 5e-3) * wanted.norm()


@pytest.mark.parametrize(
    ("text", "wanted"), [("49152K\n", 48 * 2**20), ("unknown\n", 2**25), (None, 2**25)], ids=["known", "odd", "missing"]
)
def test_size_of_the_cache_is_what_the_system_says(monkeypatch, tmp_path, text, wanted):
    monkeypatch.setattr(processor, "L3", tmp_path / "size")
    if text:
        (tmp_path / "size").write_text(text)
    assert processor.cache_bytes.__wrapped__() == wanted
