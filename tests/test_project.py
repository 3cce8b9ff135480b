"""Rules of the project that no linter knows: what the package may do, and files that must agree with each other."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import archsae_core
from archsae_study.settings.config import FIELDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("archsae_core", "archsae_study")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))

PICKLING = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
AT_MODULE_LEVEL = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If
)  # fmt: skip


def read(name: str) -> str:
    path = ROOT / name
    assert path.is_file(), f"{name} is missing"
    return path.read_text(encoding="utf-8")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions: `from a.b import c` gives `a.b.c`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] * (node.module is not None)
            yield from (".".join([*base, alias.name]) for alias in node.names)


# --- the package ---


def test_imports_point_one_way():
    """The contracts of pyproject.toml: the core knows nothing of the study or of Jupyter, and its rooms are layers."""
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@cache
def distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@each_module
def test_imports_are_declared(path):
    declared = set(requirements())
    if path.is_relative_to(ROOT / "archsae_study"):
        declared |= set(requirements("report", "cluster")) | {"distributed"}  # distributed is dask's own extra
    providers = distributions()
    third_party = {name.split(".")[0] for name in imported_names(path)} - sys.stdlib_module_names - set(PACKAGES)
    missing = {
        name for name in third_party if not declared & {canonicalize_name(dist) for dist in providers.get(name, [])}
    }
    assert not missing, f"{path.name} imports what pyproject.toml does not ask for: {missing}"


def forbidden(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        match node:
            case ast.Call(func=ast.Name(id="print")) if path.stem != "__main__":  # the command line has to print
                yield f"line {node.lineno}: print"
            case ast.Call(func=ast.Name(id="eval" | "exec")):
                yield f"line {node.lineno}: {node.func.id}"
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
                yield f"line {node.lineno}: torch.{node.attr} (pickle: use safetensors)"
            case ast.keyword(arg="trust_remote_code" | "allow_pickle") if (
                getattr(node.value, "value", True) is not False
            ):
                yield f"line {node.value.lineno}: {node.arg}"
            case ast.ExceptHandler(type=None):
                yield f"line {node.lineno}: bare except"
    yield from (f"imports {name}" for name in imported_names(path) if name.split(".")[0] in PICKLING)
    yield from (f"imports {name}" for name in imported_names(path) if name in ("torch.load", "torch.save"))


@each_module
def test_nothing_forbidden(path):
    assert list(forbidden(path)) == []


@each_module
def test_no_work_at_import(path):
    body = [node for node in parse(path).body if not isinstance(getattr(node, "value", None), ast.Constant)]
    assert [node.lineno for node in body if not isinstance(node, AT_MODULE_LEVEL)] == []


@each_module
def test_functions_are_short(path):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(parse(path))
        if isinstance(node, functions) and node.end_lineno - node.lineno >= 60
    }
    assert not long


def test_no_base_class_with_one_child():
    """A class that is made itself is no mere base, and may have a single special case."""
    nodes = [node for path in MODULES for node in ast.walk(parse(path))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    bases = [ast.unparse(base).split(".")[-1] for node in classes for base in node.bases]
    named = [node.id for node in nodes if isinstance(node, ast.Name)]
    made = {name for name in set(named) if named.count(name) > bases.count(name)}
    once = [node.name for node in classes if bases.count(node.name) == 1 and not node.name.endswith("Error")]
    assert [name for name in once if name not in made] == []


# --- dependencies ---


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def requirements(*extras: str) -> dict[str, Requirement]:
    """Direct dependencies by name: the runtime ones, or those of the extras."""
    lines = [line for extra in extras for line in project()["optional-dependencies"][extra]]
    parsed = map(Requirement, lines if extras else project()["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def all_requirements() -> dict[str, Requirement]:
    return requirements() | requirements(*project()["optional-dependencies"])


def test_each_dependency_gives_its_reason():
    reasons = re.findall(
        r'^    "([\w-]+)[^"]*",  # \S.{9,}$', read("pyproject.toml").split("\n[tool.")[0], re.MULTILINE
    )
    assert sorted(reasons) == sorted(all_requirements())


def test_conda_environment_lists_the_same():
    conda_names = {
        "torch": "pytorch",
        "matplotlib": "matplotlib-base",
        "huggingface-hub": "huggingface_hub",
        "playwright": "playwright-python",
    }
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    conda = {req.name: str(req.specifier) for req in map(Requirement, filter(lambda item: item != "pip", listed[:-1]))}
    expected = {conda_names.get(name, name): str(req.specifier) for name, req in all_requirements().items()}
    assert conda == expected | {"python": project()["requires-python"]}
    assert listed[-1] == {"pip": ["--editable ."]}


def test_constraints_pin_each_dependency_within_its_range():
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert not {name for name, req in all_requirements().items() if not req.specifier.contains(pins.get(name, "0"))}


def test_versions_agree():
    version = project()["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert f'__version__ = "{version}"' in read("archsae_core/__init__.py")


# --- Makefile, CI, README ---


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))


PAGES = ("README.md", "docs/usage.md", "docs/faults.md", "CONTRIBUTING.md")


def readme_code() -> list[str]:
    """Lines of the code blocks of README and docs, without comments, and their inline code."""
    text = "\n".join(read(name) for name in PAGES)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"(^|\s)#.*", "", line) for line in "".join(blocks).splitlines()] + re.findall(r"`([^`\n]+)`", prose)


def test_makefile_names_its_phony_targets():
    assert set(re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[1].split()) == targets()


def test_ci_runs_the_test_command_of_the_readme():
    assert re.findall(r"^[^#\n]*\bmake ([a-z]+)", read(".ci/run"), re.MULTILINE) == ["setup", "peers", "audit", "check"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert any(line.strip() == "make check" for line in readme_code())


def test_readme_names_existing_targets():
    named = {name for code in readme_code() for name in re.findall(r"\bmake ([a-z][a-z-]*)", code)}
    assert {"report", "test", "setup"} & named, "README.md shows no make command"
    assert named <= targets()


def test_readme_names_existing_functions():
    defined = {}
    for path in MODULES:
        nodes = list(ast.walk(parse(path)))
        names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined[path.stem] = names | {node.id for node in nodes if isinstance(node, ast.Name)}
    everything = set().union(*defined.values())
    for code in readme_code():
        for module, name in re.findall(
            r"\barchsae_(?:core|study)(?:\.\w+)*?\.([a-z]\w*)(?:\.([A-Z_]\w+))?(?![\w.])", code
        ):
            assert module in defined or module in archsae_core.__all__, f"archsae_core.{module}"
            assert not name or name in defined[module], f"archsae_core.{module}.{name}"
        for name in re.findall(r"^(?:\w+\.)*(\w+)\([^()]*\)$", code):
            assert name in everything, f"{name}()"


def test_readme_names_existing_commands_and_options():
    nodes = [node for path in MODULES for node in ast.walk(parse(path))]
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    lines = [line for line in readme_code() if "-m archsae_study" in line or "ARGS=" in line]
    named = {name for line in lines for name in re.findall(r"-m archsae_study (\w+)|(?<=[\s\"'=])(--[a-z-]+)", line)}
    assert {word for pair in named for word in pair if word} <= words


def test_readme_names_existing_files():
    folders = r"(?:notebooks|results|figures|tests|benchmarks|archsae_core|\.ci)/[\w./-]*"
    named = [code for code in readme_code() if re.fullmatch(folders, code)]
    linked = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", read("README.md"))
    assert [name for name in named + linked if not (ROOT / name).exists()] == []


def test_readme_tables_are_up_to_date():
    table = re.search(r"<!-- parameters:start -->\n(.*?)<!-- parameters:end -->", read("docs/usage.md"), re.DOTALL)
    assert table, "docs/usage.md has no <!-- parameters:start --> … <!-- parameters:end -->"
    assert re.findall(r"^\| *`(\w+)` *\|", table[1], re.MULTILINE) == list(FIELDS)
    check = subprocess.run(
        [sys.executable, "-m", "docs.pages", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert check.returncode == 0, f"run `make readme`\n{check.stdout}{check.stderr}"


def test_readme_has_no_placeholder():
    environment = {"ARCHSAE_RUNS", "ARCHSAE_SCHEDULER", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS"}
    assert set(re.findall(r"\b(?:TODO|FIXME|TBD|[A-Z]{3,}_[A-Z_]+)\b", read("README.md"))) <= environment
