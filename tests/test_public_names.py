"""What other people's code imports: the public names, and the example of the README as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import archsae_core

ROOT = Path(archsae_core.__file__).parents[1]


def test_every_public_name_is_there_and_documented():
    undocumented = [name for name in archsae_core.__all__ if not getattr(archsae_core, name).__doc__]
    assert undocumented == []
    assert set(archsae_core.__all__) == set(archsae_core._MODULE_OF)
    assert set(archsae_core.__all__) <= set(dir(archsae_core))
    with pytest.raises(AttributeError, match="has no attribute 'transcoder'"):
        archsae_core.transcoder  # noqa: B018 (read for its error)


def test_the_package_alone_loads_neither_torch_nor_jupyter():
    heavy = "{'torch', 'transformers', 'IPython', 'matplotlib', 'archsae_study'}"
    code = f"import sys, archsae_core; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_models_load_no_jupyter_and_nothing_of_the_study():
    heavy = "{'IPython', 'ipykernel', 'matplotlib', 'papermill', 'archsae_study', 'distributed'}"
    code = f"import sys; from archsae_core import *; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_readmes_example_runs_as_it_stands(tmp_path, monkeypatch, capsys, seeded):
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Use the core alone\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), names := {})
    scores = dict(re.findall(r"(\w+) R² = (0\.\d+)", capsys.readouterr().out))
    assert scores.keys() == {"topk", "ra"}
    assert min(map(float, scores.values())) > 0.5
    saved = {name: archsae_core.load_sae(tmp_path / f"{name}.safetensors") for name in scores}
    assert saved["ra"].dictionary.violation() == 0
    assert torch.equal(saved["ra"](names["x"]), names["sae"](names["x"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ra.safetensors", "topk.safetensors"]
