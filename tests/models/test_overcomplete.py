"""The dictionary against overcomplete 0.3.0, the library of the method's authors, installed apart."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peers import overcomplete_site
from safetensors.torch import load_file, save_file

from archsae_core.models.dictionary import ArchetypalDictionary


@pytest.fixture(scope="module")
def site():
    """Folder with overcomplete alone."""
    return overcomplete_site()


@pytest.mark.parametrize("delta", [0.1, 1.0, 5.0])
def test_same_parameters_give_the_same_dictionary_and_projection(site, tmp_path, delta):
    generator = torch.Generator().manual_seed(0)
    given = {
        "C": torch.randn(12, 6, generator=generator),
        "W": torch.randn(15, 12, generator=generator),  # not yet row-stochastic: both project it
        "relax": torch.randn(15, 6, generator=generator),
        "log_scale": torch.tensor(0.3),
        "delta": torch.tensor(delta),
    }
    save_file(given, tmp_path / "given.safetensors")
    script = Path(__file__).parents[1] / "overcomplete_dictionary.py"
    command = [sys.executable, str(script), str(site), str(tmp_path / "given.safetensors"), str(tmp_path / "out")]
    subprocess.run(command, check=True)
    theirs = load_file(tmp_path / "out")
    ours = ArchetypalDictionary(given["C"], given["W"].softmax(dim=1), delta=delta, unit_norm=False, learn_scale=True)
    with torch.no_grad():
        ours.W.copy_(given["W"])
        ours.relax.copy_(given["relax"])
        ours.log_scale.copy_(given["log_scale"])
    ours.project_()
    assert torch.allclose(ours.W, theirs["W"], atol=1e-6)
    assert torch.allclose(ours.relax, theirs["relax"], rtol=1e-5, atol=1e-6)
    assert torch.allclose(ours.atoms(), theirs["D"], rtol=1e-5, atol=1e-5)
