"""Every command of the pages, as it stands there: make targets compose, and each command begins its work or ends it.

A command runs in a folder of its own that holds what a reader would bring, smaller: the presets are shrunk, and work
that takes minutes is noted instead of done. What needs another machine is marked in the page, `<!-- needs … -->`.
"""

import importlib.machinery
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import torch
import transformers

from archsae_core import SAE, ArchetypalDictionary, save_sae
from archsae_core.data import assets, random_model
from archsae_core.data.hub import quiet_transformers
from archsae_study import __main__
from archsae_study.commands import publishing, runner
from archsae_study.engine import costs, execution
from archsae_study.pages import answer
from archsae_study.settings import config
from archsae_study.settings.config import FIELDS, configure
from archsae_study.settings.parameters import parameters_in

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/usage.md", "docs/howto.md", "docs/faults.md", "docs/data.md", "docs/performance.md",
         "CONTRIBUTING.md")  # fmt: skip
BLOCK = re.compile(r"(?P<mark><!-- needs [^>]* -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
PREPARED = "Use the core alone"
"""Section of the README whose code tests/test_public_names.py runs."""
COMMAND = re.compile(r"(?:\w+=\S+ )*(?:make [a-z]|(?:\.venv/bin/)?(?:python -m|papermill) \w)")
ELSEWHERE = ("pip", "helm")
"""Programs of another machine, a cluster's login node."""
PYTHON = ".venv/bin/python"
INSTALLED = ("-o", ".venv/.installed", "-o", ".venv/.fetched")


class Command(NamedTuple):
    """A line of a page that a reader types."""

    page: str
    line: str


def blocks(page):
    return list(BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")))


def commands(page):
    """Lines of a page's unmarked blocks of shell, and commands within its prose."""
    lines = [line for block in blocks(page) if block["kind"] == "sh" and not block["mark"]
             for line in block["code"].splitlines()]  # fmt: skip
    prose = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose) if COMMAND.match(code)]
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [Command(page, line) for line in dict.fromkeys(bare) if line]


COMMANDS = list({command.line: command for page in reversed(PAGES) for command in commands(page)[::-1]}.values())[::-1]


def composed(arguments):
    """What make would run for a target and its variables once everything is installed, line by line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", *INSTALLED, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(PYTHON)]


def calls(line):
    """Arguments of every python that a documented line starts."""
    words = shlex.split(line)
    found = composed(words[1:]) if words[0] == "make" else [line]
    for call in found:
        words = shlex.split(call)
        assert words[0] in (PYTHON, "python"), f"{call}: is no command of this project"
        yield words[1:]


# --- what a reader would bring ---


def model_folder(path, seed):
    """A language model of 24 blocks, as deep as any layer that the pages name."""
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = random_model.recipe(64) | {"n_layer": 24, "n_head": 2, "n_embd": 8}
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(path)
        random_model.tokenizer().save_pretrained(path)


def saelens_folder(path, sae):
    """A standard SAE's folder, as SAELens writes it."""
    from archsae_core.interop.saelens import to_saelens

    to_saelens(sae, path)


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    """Files of a reader, at the names that the pages give them."""
    folder = tmp_path_factory.mktemp("reader")
    for seed, name in enumerate(("gpt2", "folder")):  # a study's second model is another one
        model_folder(folder / "path" / "to" / name, seed)
    words = "the sea was calm and a ship came home with fish for all of us".split()
    texts = [" ".join(words[(i * 3 + j * (i + 1)) % len(words)] for j in range(120)) + f" {i}" for i in range(150)]
    rows = [{"body": text, "text": text, "topic": f"topic {i % 3}"} for i, text in enumerate(texts)]
    (folder / "my_articles.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "wiki.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return folder


@pytest.fixture
def here(brought, tmp_path, monkeypatch):
    """The reader's folder, as working directory, and presets that are shrunk to it."""
    shutil.copytree(brought, tmp_path / "here")
    (tmp_path / "here" / "notebooks").symlink_to(ROOT / "notebooks")
    small = {name: value for name, value in config.PRESETS["smoke"].items() if name not in ("layer", "anchor_folds")}
    small |= {"model": str(brought / "path" / "to" / "gpt2"), "text": "synthetic", "tokens": None, "n_anchors": 16}
    for name, preset in config.PRESETS.items():
        monkeypatch.setitem(config.PRESETS, name, preset | small)
    monkeypatch.setattr(costs, "_trial", lambda *_, **__: 1e-3)
    monkeypatch.setenv("ARCHSAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def begun(monkeypatch):
    """Work that a command began: what each notebook is given, tables that are made, pages, exports, publications, and
    models that are fetched by name, of hundreds of megabytes."""
    found = []

    def note(kind, *arguments, **_):
        found.append((kind, arguments))
        return arguments[-1]

    monkeypatch.setattr(assets, "model_folder", partial(note, "fetched"))
    monkeypatch.setattr(execution, "make_tables", partial(note, "tables"))
    monkeypatch.setattr(runner, "execute", partial(note, "notebook"))
    monkeypatch.setattr(runner, "of_study", partial(note, "explorer"))
    monkeypatch.setattr(runner, "write_page", lambda explorer, folder, **_: folder / "index.html")
    monkeypatch.setattr(publishing, "publish", partial(note, "published"))
    monkeypatch.setattr(answer, "answer", lambda folder: "")
    return found


def bring_saes(here, arguments):
    """Dictionaries at the places that a `compare` names."""
    for name in (word for word in arguments[1:] if not word.startswith("-")):
        dictionary = ArchetypalDictionary(torch.randn(8, 6), torch.rand(10, 8).softmax(dim=1), delta=0.5)
        dictionary.project_()
        sae = SAE(dictionary, 3, torch.randn(6), 0.5)
        if name.endswith(".safetensors"):
            save_sae(sae, here / name)
        else:
            saelens_folder(here / name, sae)


def run_study(arguments, here, begun):
    """A command of archsae_study, up to the start of its work; what it ends with must be success."""
    if arguments[0] == "compare":
        bring_saes(here, arguments)
    assert __main__.main(arguments) == 0
    notebooks = [given for kind, given in begun if kind == "notebook"]
    if arguments[0] == "report" and "--dry-run" not in arguments:
        assert [name for name, *_ in notebooks] == list(runner.NOTEBOOKS)
    if arguments[0] == "sweep":
        assert len({cell["delta"] for *_, cell in notebooks}) > 1
    for *_, cell in notebooks:
        paths = [cell[name] for name in ("text", "model") if "--set" in arguments and name in cell]
        assert all(Path(path).is_absolute() and Path(path).exists() for path in paths)
    if arguments[0] == "fetch":
        assert [given for kind, given in begun if kind == "fetched"] == [(name,) for name in arguments[1:]]
    if arguments[0] == "compare":
        assert (here / "comparison.png").stat().st_size > 0


def run_papermill(arguments):
    """papermill with a notebook's parameters, but nothing executed; the report would accept what it was given."""
    from papermill.__main__ import papermill

    papermill.main([*arguments, "--prepare-only", "--no-progress-bar"], standalone_mode=False)
    cells = nbformat.read(arguments[1], as_version=4).cells
    tagged = [cell for cell in cells if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))]
    assert len(tagged) == 2
    exec("\n".join(cell.source for cell in tagged), names := {})
    assert configure(parameters_in(names)).preset == "quick"
    assert set(re.findall(r" -p (\w+)", " " + " ".join(arguments))) <= set(FIELDS)


def is_module(name):
    """Whether `python -m name` would find something, in the project or among the installed packages."""
    top = importlib.machinery.PathFinder.find_spec(name.partition(".")[0], [str(ROOT), *sys.path])
    places = (ROOT / f"{name.replace('.', '/')}{end}" for end in (".py", "/__main__.py"))
    return top is not None and ("." not in name or any(place.exists() for place in places))


def in_place(word, here):
    return word.replace("/path/to/", f"{here}/path/to/") if "=/path/to/" in word else word


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.line}")
def test_the_command_works_as_it_stands(command, here, begun, seeded):
    if command.line.split()[0].endswith("papermill"):
        run_papermill(shlex.split(command.line)[1:])
        return
    installed = set()
    for arguments in calls(command.line):
        if arguments[:3] == ["-m", "pip", "install"]:
            installed |= {word.replace("-", "_") for word in arguments}
        if arguments[:2] == ["-m", "archsae_study"] and arguments[2:] != ["fetch"]:
            run_study([in_place(word, here) for word in arguments[2:]], here, begun)
        elif arguments[0] == "-m":
            assert arguments[1] in installed or is_module(arguments[1]), f"{command.line}: no module {arguments[1]}"
        else:
            assert arguments[0] == "-c" or (ROOT / arguments[0]).is_file(), f"{command.line}: no {arguments[0]}"


def test_the_pages_show_commands_of_every_kind():
    lines = [command.line for command in COMMANDS]
    for wanted in ("make report", "make test", "papermill", "study report", "study sweep", "study compare", "clean"):
        assert any(wanted in line for line in lines), wanted
    assert len(lines) > 20


def test_blocks_are_of_a_known_kind_and_python_runs_or_says_what_it_needs():
    for page in PAGES:
        for block in blocks(page):
            assert block["kind"] in ("sh", "python"), f"{page}: say what kind of code {block['code'][:40]!r} is"
            if block["kind"] == "python":
                compile(block["code"], page, "exec")
                section = block.string[: block.start()].rpartition("\n## ")[2].partition("\n")[0]
                assert block["mark"] or section == PREPARED, f"{page}: {block['code'][:40]!r} runs nowhere"


def test_commands_of_other_machines_are_not_taken_for_the_projects():
    assert not any(shlex.split(command.line)[0] in ELSEWHERE for command in COMMANDS)
