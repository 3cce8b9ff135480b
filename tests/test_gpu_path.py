"""What a GPU is given to do, without one: the results of a CPU, and no operation that makes it wait."""

import pytest
import torch
from models.test_training import build, data
from torch.utils._python_dispatch import TorchDispatchMode

from archsae_core.kernels import sparse as kernels
from archsae_core.models.training import LOG_EVERY, Trainer

FEW, MANY = {"aux_k": 16}, {"aux_k": 4}
"""Fewer dead features than aux_k, and more."""
PUBLISHED = {"w_step": "published"}
CASES = [("topk", FEW), ("topk", MANY), ("ra", FEW), ("ra", MANY), ("frozen", MANY), ("ra", PUBLISHED | MANY)]
CASES += [("ra", PUBLISHED | FEW | {"unit_norm": False, "learn_scale": True})]
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount"}
"""Operations whose result, or the size of it, a GPU has to hand to the host."""


def waits(function, args):
    name = function.overloadpacket.__name__
    indices = [index for index in args[1] if torch.is_tensor(index)] if name in ("index", "index_put_") else []
    return name in WAITS or any(index.dtype == torch.bool for index in indices)


class Waits(TorchDispatchMode):
    """Names of the operations that a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if waits(function, args):
            self.found.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)


def trained(arm, overrides, steps, device="cpu"):
    sae, config = build(arm, dead_after=3, **overrides)
    with torch.no_grad():
        sae.b_enc[::6] = -3.0
    trainer = Trainer(sae.to(device), config)
    for step in range(steps):
        trainer.train_step(data(step))
    return trainer


@pytest.mark.parametrize(("arm", "overrides"), CASES)
def test_a_gpus_steps_train_what_a_cpus_do(arm, overrides, monkeypatch):
    cpu = trained(arm, overrides, 30)
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)
    gpu = trained(arm, overrides, 30)
    assert torch.equal(cpu.last_fired, gpu.last_fired)
    assert cpu.log[-1]["dead"] > 0
    assert abs(cpu.log[-1]["aux"] - 1) > 1e-3
    for name, expected in cpu.sae.state_dict().items():
        torch.testing.assert_close(gpu.sae.state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("arm", "overrides"), CASES)
def test_a_gpu_is_waited_for_only_where_a_row_is_logged(arm, overrides, gpu, monkeypatch):
    trainer = trained(arm, overrides, LOG_EVERY + 1)
    batches = [data(step) for step in range(trainer.step, 2 * LOG_EVERY)]
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    for x in batches:
        with Waits() as waits:
            trainer.train_step(x)
        assert bool(waits.found) == (trainer.step % LOG_EVERY == 0), waits.found


def test_waits_are_seen_on_a_cpus_path():
    trainer = trained("ra", {"w_step": "published"}, LOG_EVERY + 1)
    with Waits() as waits:
        trainer.train_step(data(0))
    assert {"_local_scalar_dense", "nonzero"} <= set(waits.found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("arm", "overrides"), CASES)
def test_a_real_gpu_trains_what_a_cpu_does(arm, overrides):
    cpu, gpu = trained(arm, overrides, 40), trained(arm, overrides, 40, "cuda")
    for name, expected in cpu.sae.state_dict().items():
        torch.testing.assert_close(gpu.sae.state_dict()[name].cpu(), expected, rtol=1e-3, atol=1e-4, msg=name)
