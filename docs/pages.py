"""The generated parts of README.md and docs/: `python -m docs.pages` writes them, `--check` compares."""

import argparse
import ast
import inspect
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

from archsae_core import config as core_config
from archsae_core.storage import write_atomically
from archsae_study.engine.source import PROJECT
from archsae_study.formatting import markdown_table
from archsae_study.pages.answer import choices, sentences
from archsae_study.settings import config as study_config
from archsae_study.settings.config import FIELDS, PRESETS, configure
from benchmarks import page, results


def field_docs() -> dict[str, str]:
    """The docstring under each field of the dataclasses that hold parameters."""
    trees = [ast.parse(inspect.getsource(module)) for module in (study_config, core_config)]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    pairs = [pair for node in classes for pair in itertools.pairwise(node.body)]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def parameter_table() -> str:
    """Every parameter: what it means and its value in each preset."""
    # of nobody's $ARCHSAE_SCHEDULER
    presets = {name: configure({"preset": name, "scheduler": "None"}) for name in PRESETS}
    rows = []
    documented = field_docs()
    for name, text in ((name, documented[name]) for name in FIELDS):
        values = (f"`{_short(config[name])}`" for config in presets.values())
        rows.append((f"`{name}`", text.replace("|", r"\|"), *values))
    return markdown_table(("parameter", "meaning", *presets), rows)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        names = any(isinstance(item, str) for item in value)
        return f"{len(value)} of them" if names else ", ".join(map(_short, value))
    return str(value)


def generated() -> dict[Path, dict[str, str]]:
    """Of each page, the content of each pair of markers `<!-- name:start -->` … `<!-- name:end -->`."""
    missing = set(FIELDS) - set(field_docs())
    if missing:
        raise RuntimeError(f"fields without a docstring: {', '.join(sorted(missing))}")
    docs = PROJECT / "docs"
    return {
        PROJECT / "README.md": {"answer": f"{sentences(PROJECT)}\n\n{choices(PROJECT)}"},
        docs / "usage.md": {"parameters": parameter_table()},
        docs / "performance.md": page.parts() | {"speed": page.speed(results.load()["steps"])},
    }


def rewrite(text: str, parts: Mapping[str, str], where: str) -> str:
    """`text` with each generated part renewed. Raises RuntimeError for a missing marker."""
    for name, content in parts.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise RuntimeError(f"{where} needs {start} and {end} once each")
        before, rest = text.split(start)
        text = f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def main(*, check: bool) -> int:
    """Rewrite the pages, or with `check` return 1 where one is out of date."""
    stale = 0
    for path, parts in generated().items():
        old = path.read_text(encoding="utf-8")
        new = rewrite(old, parts, path.name)
        if check and new != old:
            stale = 1
            sys.stderr.write(f"{path.name} is out of date: run `make readme`\n")
        elif new != old:
            write_atomically(path, lambda temporary, new=new: temporary.write_text(new, encoding="utf-8"))
    return stale


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m docs.pages", description="Rewrite the generated tables of the pages."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page is out of date")
    sys.exit(main(check=parser.parse_args().check))
