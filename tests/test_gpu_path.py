"""What a GPU is given to do, without one: the results of a CPU, no operation that makes it wait, steps that replay."""

import pytest
import torch
from models.test_training import build, data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from archsae_core.kernels import graphs
from archsae_core.kernels import sparse as kernels
from archsae_core.models.training import LOG_EVERY, Trainer
from archsae_core.models.w_step import BLOCKS

FEW, MANY = {"aux_k": 16}, {"aux_k": 4}
"""Fewer dead features than aux_k, and more."""
PUBLISHED = {"w_step": "published"}
CASES = [("topk", FEW), ("topk", MANY), ("ra", FEW), ("ra", MANY), ("frozen", MANY), ("ra", PUBLISHED | MANY)]
CASES += [("ra", PUBLISHED | FEW | {"unit_norm": False, "learn_scale": True})]
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount"}
"""Operations whose result, or the size of it, a GPU has to hand to the host."""
RESHAPES = {"squeeze_", "unsqueeze_", "t_", "transpose_"}
"""Operations in place that launch nothing."""


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


def alias(value):
    """The same memory in today's shape, which `squeeze_` and the like change in place."""
    return value.detach() if torch.is_tensor(value) else value


def memory(values):
    """Dense tensors that values are in."""
    for tensor in filter(torch.is_tensor, tree_leaves(values)):
        sparse = tensor.layout == torch.sparse_csr
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values()) if sparse else (tensor,)


class Recording(TorchDispatchMode):
    """A CPU's stand-in for a CUDA graph: the same operations on the same memory, with the numbers of the recording.

    As on a GPU, nothing has changed after a recording, and what the host would have to wait for is an error.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.before = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, given = function.overloadpacket.__name__, tree_map(alias, (args, kwargs or {}))
        if waits(function, args):
            raise RuntimeError(f"{name} makes the host wait")
        if function._schema.is_mutable:
            for tensor in memory(given):
                storage = tensor.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        results = function(*args, **(kwargs or {}))
        if name not in RESHAPES:
            self.operations.append((function, *given, tree_map(alias, results)))
        return results

    def undo(self):
        for storage, content in self.before.values():
            storage.copy_(content)

    def replay(self):
        with torch._C._AutoDispatchBelowAutograd():
            for function, args, kwargs, results in self.operations:
                found = function(*args, **kwargs)
                for place, value in zip(memory(results), memory(found), strict=True):
                    if place.data_ptr() != value.data_ptr():
                        place.copy_(value)


def record(work):
    with Recording() as recording:
        results = work()
    recording.undo()
    return recording.replay, results


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)


@pytest.fixture
def recorded(gpu, monkeypatch):
    """Trainers replay what `record` recorded."""
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setenv(graphs.WANTED, "1")
    monkeypatch.setattr(torch.Tensor, "numpy", None)


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


@pytest.mark.parametrize(("arm", "overrides"), CASES)
def test_replayed_steps_train_what_eager_ones_do(arm, overrides, monkeypatch, recorded):
    replayed = trained(arm, overrides, 40)
    assert len(replayed.graphs.recorded) == (1 if replayed.mirror is None else BLOCKS)
    monkeypatch.delenv(graphs.WANTED)
    eager = trained(arm, overrides, 40)
    assert not eager.graphs.recorded
    assert eager.log == replayed.log
    assert eager.log[-1]["dead"] > 0
    assert torch.equal(eager.last_fired, replayed.last_fired)
    for name, expected in eager.sae.state_dict().items():
        assert torch.equal(replayed.sae.state_dict()[name], expected), name


def test_a_checkpoint_continues_replayed_steps(tmp_path, recorded):
    whole, first, rest = trained("ra", MANY, 40), trained("ra", MANY, 25), trained("ra", MANY, 15)
    first.save(tmp_path / "checkpoint")
    rest.load(tmp_path / "checkpoint")
    for step in range(25, 40):
        rest.train_step(data(step))
    for name, expected in whole.sae.state_dict().items():
        assert torch.equal(rest.sae.state_dict()[name], expected), name


def test_a_recording_keeps_numbers_and_rereads_memory():
    x, y, number = torch.ones(2), torch.zeros(2), 2
    replay, total = record(lambda: y.add_(x * number).sum())
    assert y.tolist() == [0, 0]
    x.fill_(2)
    replay()
    x.fill_(3)
    number = 3
    replay()
    assert (y.tolist(), total.item()) == ([10, 10], 20)
    with pytest.raises(RuntimeError, match="nonzero makes the host wait"):
        record(x.nonzero)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("arm", "overrides"), CASES)
def test_graphs_of_a_gpu_train_what_its_eager_steps_do(arm, overrides, monkeypatch):
    eager = trained(arm, overrides, 40, "cuda")
    monkeypatch.setenv(graphs.WANTED, "1")
    replayed = trained(arm, overrides, 40, "cuda")
    assert len(replayed.graphs.recorded) == (1 if replayed.mirror is None else BLOCKS)
    for name, expected in eager.sae.state_dict().items():
        torch.testing.assert_close(replayed.sae.state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=name)
