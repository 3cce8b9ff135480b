"""The report as a web site: `python -m docs.site` builds it from README, docs and the committed notebooks.

No notebook is executed. Formulas, search and theme need no network, so that the site works from `file://`.
"""

import argparse
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from sphinx.cmd.build import main as build

import archsae_core
from archsae_study.commands.runner import NOTEBOOKS
from archsae_study.engine.made import RECORD, made_files, note_made
from archsae_study.engine.source import PROJECT

DOCS = Path(__file__).parent
PAGES = ("usage", "howto", "interop", "data", "models", "dead_features", "faults", "performance")
"""Pages of docs/ beside the notebooks, in the order of the navigation."""
EXPLORER = "explorer"


def sources(target: Path, explorer: Path | None) -> None:
    """Put the site's sources together: pages, notebooks with their alternative texts, the API, what they show."""
    shutil.copytree(DOCS, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(DOCS / "conf.py", target / "conf.py")
    (target / "notebooks").mkdir()
    for name in NOTEBOOKS:
        nbformat.write(with_alt(PROJECT / "notebooks" / f"{name}.ipynb"), target / "notebooks" / f"{name}.ipynb")
    shutil.copytree(PROJECT / "figures", target / "figures")
    (target / "index.md").write_text(index(explorer), encoding="utf-8")
    (target / "contributing.md").write_text(linked((PROJECT / "CONTRIBUTING.md").read_text("utf-8")), encoding="utf-8")
    (target / "api.md").write_text("\n".join(api()), encoding="utf-8")
    if explorer is not None:
        extra = target / "_extra"
        shutil.copytree(explorer, extra / EXPLORER)
        configuration = (target / "conf.py").read_text("utf-8")
        (target / "conf.py").write_text(f'{configuration}\nhtml_extra_path = ["_extra"]\n', encoding="utf-8")


def with_alt(path: Path) -> nbformat.NotebookNode:
    """A notebook whose cells' alternative texts stand where the renderer looks for them."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if alt := cell.metadata.get("alt"):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def index(explorer: Path | None) -> str:
    """The README as the first page, with the navigation."""
    entries = [f"notebooks/{name}" for name in NOTEBOOKS]
    trees = {"The report": entries, "Use": list(PAGES), "Build on it": ["contributing", "api"]}
    text = linked((PROJECT / "README.md").read_text("utf-8"))
    if explorer is not None:
        text = text.replace(
            "\n## Two commands",
            f'\n<a href="{EXPLORER}/index.html">Open the feature explorer</a>\n\n## Two commands',
            1,
        )
    blocks = (
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"])
        for caption, names in trees.items()
    )
    return "\n\n".join([text, *blocks, ""])


def linked(text: str) -> str:
    """Links of a page at the project's top, as they are from the site's top."""
    return text.replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](contributing.md)")


def api() -> Iterator[str]:
    """Every public name of the core with its docstring."""
    yield "# API of archsae_core\n"
    yield 'Shapes are those of the docstrings; types carry them too (`Float[Tensor, "batch d_model"]`).\n'
    for name in sorted(archsae_core.__all__, key=str.lower):
        found = getattr(archsae_core, name)
        kind = "class" if inspect.isclass(found) else "function" if callable(found) else "data"
        members = [" :members:"] if kind == "class" and not issubclass(found, Exception) else []
        yield "\n".join(
            ["```{eval-rst}", f".. auto{kind}:: {found.__module__}.{name}" if kind != "data" else "", *members, "```\n"]
        )


def main() -> int:
    """Build the site; warnings are errors. Returns Sphinx's exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "runs" / "site")
    parser.add_argument("--explorer", type=Path, help="folder that `make explore` built, to put into the site")
    arguments = parser.parse_args()
    if arguments.explorer is not None and not (arguments.explorer / "index.html").is_file():
        parser.error(f"--explorer {arguments.explorer}: it holds no index.html: build it with `make explore`")
    _require_own(parser, arguments.out)
    if DOCS in arguments.out.resolve().parents:
        parser.error(f"--out {arguments.out}: it is among the sources of the site: name another folder")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        sources(source, arguments.explorer)
        # in a folder of its own: myst-nb writes beside it, and a build that fails leaves the site as it was
        built = Path(folder) / "html"
        status = build(["-q", "-b", "html", "-d", f"{folder}/doctrees", str(source), str(built)])
        if status == 0:
            _require_own(parser, arguments.out)
            if arguments.out.exists():
                shutil.rmtree(arguments.out)
            shutil.copytree(built, arguments.out)
            note_made(arguments.out, *_files(arguments.out))
            sys.stdout.write(f"{arguments.out / 'index.html'}\n")
    return status


def _require_own(parser: argparse.ArgumentParser, out: Path) -> None:
    if out.exists() and (foreign := _foreign(out)):
        found = f"it holds what this command did not write, such as {foreign[0].name}"
        parser.error(f"--out {out}: {found}: name another folder")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]


def _foreign(out: Path) -> list[Path]:
    """Files in `out` that no build of the site put there, or that were changed since."""
    if not out.is_dir():
        return [out]
    made = made_files(out) | {out / RECORD}
    return sorted(path for path in _files(out) if path not in made)


def pages_of(out: Path) -> list[str]:
    """Names of the pages of a built site, from its search index."""
    text = (out / "searchindex.js").read_text("utf-8")
    return json.loads(text[text.index("{") : text.rindex("}") + 1])["docnames"]


if __name__ == "__main__":
    sys.exit(main())
