"""`pip install .` without the repository: what a report lacks is said at once, and nothing is written anywhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """site-packages of a fresh environment with this package; what it depends on is borrowed from the tests' own."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("archsae_core", "archsae_study"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # a path in a .pth file is searched, but its own .pth files, such as that of an editable installation, are not read
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder / "source")], check=True)
    return site


def run(site, arguments, folder):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ARCHSAE_RUNS")}
    python = site.parents[2] / "bin" / "python"
    return subprocess.run([python, "-B", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["report --preset smoke --publish", "sweep --preset smoke --deltas 1"])
def test_a_report_without_the_repository_is_refused_with_the_fix(installed, tmp_path, command):
    before = sorted(installed.rglob("*"))
    done = run(installed, ["-m", "archsae_study", *command.split()], tmp_path)
    assert done.returncode == 2, done.stderr
    fix = "clone the project and install it with `pip install -e .`, or use `make report` there"
    assert done.stderr == (
        f"error: there are no notebooks in {installed}, since the package was installed without them: {fix}\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert sorted(installed.rglob("*")) == before


def test_pages_find_their_templates_without_the_repository(installed, tmp_path):
    code = "from archsae_study.pages.style import TEMPLATES; print(len(TEMPLATES.list_templates()))"
    done = run(installed, ["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((ROOT / "archsae_study" / "pages" / "findings").iterdir()))


def test_the_core_works_without_the_repository(installed, tmp_path):
    code = "import archsae_core; print(archsae_core.SAE.__module__, archsae_core.__file__)"
    done = run(installed, ["-c", code], tmp_path)
    assert done.stdout.split() == ["archsae_core.models.sae", str(installed / "archsae_core" / "__init__.py")]
