"""Reading safetensors files: an interrupt meanwhile is raised after, and never taken for damage."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from archsae_core import tensor_files
from archsae_core.models import sae as saes
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.tensor_files import read_tensors


@pytest.fixture
def path(tmp_path):
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x", {"k": "v"})
    return tmp_path / "x"


@pytest.fixture
def interrupted(monkeypatch):
    """Every tensor that is read meets an interrupt, which must not reach the reader: names of those that were read."""
    read, opened = [], tensor_files.safe_open

    class Interrupted:
        def __init__(self, *given, **options):
            self.file = opened(*given, **options)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *given):
            return self.file.__exit__(*given)

        def get_tensor(self, name):
            signal.raise_signal(signal.SIGINT)
            read.append(name)
            return self.file.get_tensor(name)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(tensor_files, "safe_open", Interrupted)
    # whoever runs the tests in the background may have had the interrupt ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield read
    signal.signal(signal.SIGINT, before)


def test_tensors_and_metadata(path, tmp_path):
    found = read_tensors(path)
    assert found.metadata == {"k": "v"}
    assert found.tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.tensors["b"].dtype == torch.bfloat16
    save_file({"a": torch.zeros(1)}, tmp_path / "bare")
    assert read_tensors(str(tmp_path / "bare")).metadata == {}


def test_an_interrupt_is_raised_once_everything_is_read(path, interrupted):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        read_tensors(path)
    assert interrupted == ["a", "b"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_sound_sae_is_not_called_damaged(tmp_path, interrupted):
    sae = saes.SAE(FreeDictionary(torch.eye(3)), 1, torch.zeros(3), 1.0)
    saes.save_sae(sae, tmp_path / "sae")
    with pytest.raises(KeyboardInterrupt):
        saes.load_sae(tmp_path / "sae")


def test_other_threads_read_too_and_damage_is_reported(path, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read_tensors, path).result().metadata == {"k": "v"}
    (tmp_path / "cut").write_bytes(path.read_bytes()[:20])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SafetensorError):
        read_tensors(tmp_path / "cut")
    assert signal.getsignal(signal.SIGINT) is before
