"""Fixtures that several test files share."""

import hypothesis
import pytest
import torch
from stub_hub import StubHub

hypothesis.settings.register_profile("soak", max_examples=200, derandomize=False)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests of tiny models are faster on one thread, and their sums do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stub of the Hugging Face hub with an empty cache, to which all of the hub's libraries talk."""
    import datasets
    import huggingface_hub

    from archsae_core.data import model_files

    stub = StubHub(tmp_path / "hub", gated=("user/gated",))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stub.url)
    template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", stub.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    model_files._pinned.cache_clear()
    yield stub
    stub.close()
    model_files._pinned.cache_clear()


@pytest.fixture
def seeded():
    """torch.randn gives a test the same numbers whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
