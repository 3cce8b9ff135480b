"""The code of docs/interop.md runs as it stands; blocks that need another tool are marked."""

import re
from pathlib import Path

import pytest
import torch

from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
BLOCK = re.compile(r"(?P<mark><!-- needs [^>]* -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


@pytest.fixture
def sae(seeded):
    dictionary = ArchetypalDictionary(torch.randn(8, 6), torch.rand(10, 8).softmax(dim=1), delta=0.5)
    dictionary.project_()
    return SAE(dictionary, 3, torch.randn(6), 0.5)


def test_the_pages_code_runs(sae, tmp_path, monkeypatch):
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    here = [block["code"] for block in blocks if not block["mark"]]
    assert (len(here), len(blocks)) == (3, 6)
    monkeypatch.chdir(tmp_path)
    names = {"sae": sae}
    for code in here:
        exec(compile(code, PAGE.name, "exec"), names)
    assert torch.equal(names["a"].atoms(), sae.atoms())
    assert torch.equal(names["b"].atoms(), sae.atoms())


def test_the_versions_are_those_that_are_tested():
    page, folder = PAGE.read_text(encoding="utf-8"), Path(__file__).parents[1] / "environments"
    pinned = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.txt"))
    for package, named in {
        "sae-lens": "SAELens",
        "neuronpedia": "neuronpedia",
        "sae-dashboard": "SAEDashboard",
    }.items():
        version = re.search(rf"^{package}==(.*)$", pinned, re.MULTILINE)[1]
        assert re.search(rf"{named}\s{re.escape(version)}", page)
