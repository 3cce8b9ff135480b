"""A finished run as the committed report: stripped notebooks, results and figures in the project's folder."""

import ast
import base64
import io
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import nbformat
from PIL import Image

from archsae_study.commands.outputs import require_writable
from archsae_study.commands.runner import NOTEBOOKS, PROJECT, NotebookFailed
from archsae_study.engine.made import RECORD, made_files, note_made
from archsae_study.experiments import TABLES
from archsae_study.settings.config import BESIDE

AGAIN = "move it elsewhere, and run the report again"
KEPT = ("tags", "alt")
"""Metadata of a cell that belong to the report: `alt` is the alternative text of its figure."""


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what papermill and Jupyter add to an executed notebook: timings, stderr, widgets, the injected cell.

    The injected values move into the parameters cell, so that the notebook shows, and repeats, the run it came from.
    Images are packed tighter: GitHub's viewer does not show a notebook above a megabyte.
    """
    injected = [cell.source for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _with_values(cell.source, "\n".join(injected))
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = packed(output.data["image/png"])
            if "execution_count" in output:
                output.execution_count = count
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    return notebook


def packed(png: str) -> str:
    """A PNG image in Base64, in fewer bytes where that can be had: every pixel shows the colour that it had."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    file = io.BytesIO()
    # zlib's default strategy: `optimize` takes the one for filtered data, a tenth more bytes for charts
    image.save(file, "PNG", compress_level=9, compress_type=zlib.Z_DEFAULT_STRATEGY)
    return min(png, base64.b64encode(file.getvalue()).decode() + "\n", key=len)


def _with_values(parameters: str, injected: str) -> str:
    """The parameters cell with the values of the injected cell; one that it does not list is put at its end.

    Those of `BESIDE` stay away: a reader who changes another parameter need not have what they name.
    """
    for statement in ast.parse(injected).body:
        name, value = statement.targets[0].id, ast.literal_eval(statement.value)
        if name in BESIDE:
            continue
        text = repr(value)
        if isinstance(value, str) and text == f"'{value}'" and '"' not in value:
            text = f'"{value}"'  # as the formatter would write it
        pattern = re.compile(rf"^({name}: [^=]+ = ).*?(  #)", flags=re.MULTILINE)
        parameters, found = pattern.subn(lambda match, text=text: match[1] + text + match[2], parameters)
        if not found:
            parameters += f"\n{name}: {type(value).__name__} = {text}  # of this run"
    return parameters


def check_place() -> None:
    """Raise ConfigError where a report could not be published: hours later would be late to say so."""
    for name in ("notebooks", "results", "figures"):
        require_writable("publish", str(PROJECT / name), PROJECT / name)


def publish(folder: Path) -> None:
    """Make a finished run the committed report: stripped notebooks, results/ and figures/ move into place.

    Everything is written before anything is put in place, so that a disk that fills leaves the committed report whole.
    Only what the report made is published. It replaces files of these names; others that an earlier one published go,
    unless someone has changed them since.
    Raises NotebookFailed for a run without all notebooks or of others than those that are here now, and for results
    that are not as the report wrote them.
    """
    missing = [name for name in NOTEBOOKS if not (folder / f"{name}.ipynb").exists()]
    if missing:
        raise NotebookFailed(f"{folder} lacks {', '.join(missing)}: run the whole report first")
    made, notebooks = made_files(folder), []
    files: dict[Path, Callable[[Path], object]] = {}
    for name in NOTEBOOKS:
        if (executed := folder / f"{name}.ipynb") not in made:
            told = f"was changed since the report executed it, or its line in {RECORD} is gone"
            raise NotebookFailed(f"{executed} {told}: {AGAIN}")
        notebook = strip(nbformat.read(executed, as_version=4))
        path = PROJECT / "notebooks" / f"{name}.ipynb"
        if path.exists() and _sources(nbformat.read(path, as_version=4)) != _sources(notebook):
            raise NotebookFailed(f"{path}: was changed since this run executed it: run the report again")
        files[path] = partial(nbformat.write, notebook)
        notebooks.append(notebook)
    # a run folder keeps what earlier versions made in it, tables and figures that there are no more
    code = "\n".join(cell for notebook in notebooks for cell in _sources(notebook))
    shown = [folder / "results" / table.file_name for table in TABLES]
    shown += [path for path in made if path.parent.name == "figures" and f'"{path.name}"' in code]
    shown = sorted(made.intersection(shown))
    earlier = made_files(PROJECT)
    before = [folder / path.relative_to(PROJECT) for path in earlier]
    for path in sorted({*before, *(folder / "results" / table.file_name for table in TABLES)} - made):
        if path.exists():
            told = f"was changed since the report wrote it, or its line in {RECORD} is gone"
            raise NotebookFailed(f"{path}: {told}: {AGAIN}")
    published = {PROJECT / path.relative_to(folder): path for path in shown}
    files |= {path: partial(shutil.copyfile, source) for path, source in published.items()}
    stale = earlier - set(files)
    _put_in_place(files)
    for path in stale:
        path.unlink()
    (PROJECT / RECORD).unlink(missing_ok=True)
    note_made(PROJECT, *published)


def _sources(notebook: nbformat.NotebookNode) -> list[str]:
    """Its cells as they are written, but for the one of parameters, in which a run puts its own."""
    return [cell.source for cell in notebook.cells if "parameters" not in cell.metadata.get("tags", [])]


def _put_in_place(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """Let each function write its file beside the place it is for, then rename all of them."""
    written = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, write in files.items():
            path.parent.mkdir(exist_ok=True)
            write(written[path])
            with open(written[path], "rb") as file:
                os.fsync(file.fileno())
        for path, temporary in written.items():
            os.replace(temporary, path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
