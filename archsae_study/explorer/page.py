"""The explorer as one folder that opens from a file: `index.html`, its assets, an index and shards of details."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm.auto import tqdm

from archsae_study.explorer.data import FORMAT, About, Anchor, Feature, Summary

ASSETS = Path(__file__).parent / "assets"
"""Folder of the files that the page consists of."""
SHARD = 16
"""Features in a file of details."""
ANCHOR_SHARD = 64
"""Anchors in a file of their contexts."""
SCRIPTS = ("text.js", "charts.js", "detail.js", "explorer.js")
"""Of the explorer itself, in the order they need."""
VENDORED = ("tabulator.min.js", "tabulator.min.css", "tabulator-LICENSE.txt")
_ASSETS = ("page.js", "explorer.css", *SCRIPTS, *VENDORED)
"""tabulator-tables 6.5.3 of npm; `vendor/README.md` has its hashes."""
DIGITS = 4
"""Significant digits of numbers in the page."""


@runtime_checkable
class Explorable(Protocol):
    """What a page shows: dictionaries with a summary of every feature, details on demand."""

    about: About

    def summaries(self, key: str) -> list[Summary]:
        """Of every feature of a dictionary, in order."""

    def feature(self, key: str, feature: int) -> Feature:
        """One feature in full."""

    def anchors(self, key: str) -> list[int]:
        """Anchors that its features name; empty where the dictionary has none."""

    def anchor(self, key: str, anchor: int) -> Anchor:
        """One of them."""


def asset(name: str) -> str:
    """Text of a file that the page consists of."""
    return (ASSETS / ("vendor" if name in VENDORED else "") / name).read_text(encoding="utf-8")


def script(name: str, content: Any) -> str:
    """A shard as JavaScript: a call with its name and its content.

    JSON with every character outside ASCII and every `<` escaped, so that no content can end a string, a line
    (U+2028) or the script element around it. Raises ValueError for NaN and infinity.
    """
    text = json.dumps(plain(content), separators=(",", ":"), allow_nan=False)
    return f"archsae.receive({json.dumps(name)},{escaped(text)});\n"


def escaped(text: str) -> str:
    """JSON in ASCII that stays inside a script element: `<`, `>` and `&` only occur in its strings."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plain(value: Any) -> Any:
    """Dataclasses of `data`, lists and dicts as JSON-able lists and dicts, floats with `DIGITS` significant digits.

    `dataclasses.asdict` would copy every token of every context, and take three times as long.
    """
    if isinstance(value, float):
        return 0 if value == 0 else float(f"{value:.{DIGITS}g}") if math.isfinite(value) else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in (value if isinstance(value, dict) else vars(value)).items()}


def index(source: Explorable) -> dict[str, Any]:
    """What the page loads at once: where it comes from, and the list of features in columns."""
    columns = {}
    for dictionary in source.about.dictionaries:
        found = source.summaries(dictionary.key)
        fields = ("name", "density", "maximum", "stability", "probe", "probe_topic", "purity", "topic")
        columns[dictionary.key] = {name: [getattr(summary, name) for summary in found] for name in fields} | {
            name: [[each.token for each in getattr(summary, name)] for summary in found]
            for name in ("tokens", "promoted")
        }
    sizes = {"shard_size": SHARD, "anchor_shard_size": ANCHOR_SHARD}
    return {"format": FORMAT, "about": source.about, "features": columns} | sizes


def features_shard(source: Explorable, key: str, shard: int) -> list[Feature]:
    """Details of features `SHARD · shard` and on."""
    end = min(len(source.summaries(key)), SHARD * (shard + 1))
    return [source.feature(key, feature) for feature in range(SHARD * shard, end)]


def anchors_shard(source: Explorable, key: str, shard: int) -> list[Anchor]:
    """Contexts of the named anchors among `ANCHOR_SHARD · shard` and on."""
    return [source.anchor(key, anchor) for anchor in source.anchors(key) if anchor // ANCHOR_SHARD == shard]


def shard(source: Explorable, kind: str, key: str, number: int) -> list[Feature] | list[Anchor]:
    """Any shard by the name that the page asks for. Raises KeyError for another kind."""
    return {"features": features_shard, "anchors": anchors_shard}[kind](source, key, number)


def _shards(source: Explorable, key: str) -> Iterator[tuple[str, int]]:
    for number in range(math.ceil(len(source.summaries(key)) / SHARD)):
        yield "features", number
    for number in sorted({anchor // ANCHOR_SHARD for anchor in source.anchors(key)}):
        yield "anchors", number


def write_page(
    source: Explorable,
    folder: Path,
    *,
    progress: bool = False,
    before: Callable[[dict[Path, Path]], object] = lambda files: None,
) -> Path:
    """Write the page into `folder`, replacing an explorer that is there; returns the path of `index.html`.

    Nothing is replaced before everything is written, and files of another kind stay, also where it is written. `before`
    is told by what each file of the page is about to be replaced. Raises FileExistsError where `folder` holds something
    but no explorer, or something else under the name of one of its files.
    """
    check_page_place(folder)
    work = _work(folder)
    for path in unfinished_files(work):
        path.unlink()
    _write(work / "index.html", asset("index.html"))
    for name in _ASSETS:
        _write(work / "assets" / name, asset(name))
    _write(work / "data" / "index.js", script("index", index(source)))
    for dictionary in source.about.dictionaries:
        key = dictionary.key
        shards = list(_shards(source, key))
        for kind, number in _bar(shards, f"explorer: {dictionary.label}", progress):
            content = shard(source, kind, key, number)
            _write(work / "data" / kind / key / f"{number}.js", script(f"{kind}/{key}/{number}", content))
    files = {folder / path.relative_to(work): path for path in page_files(work)}
    for target in _shard_files(folder):
        if target in files and not _is_shard(folder, target):
            raise FileExistsError(f"{target} is no file of an explorer and would be replaced: move it elsewhere")
    before(files)
    _move_into(folder, work, files.values())
    return folder / "index.html"


def check_page_place(folder: Path) -> None:
    """Raise FileExistsError where `folder` holds something but no explorer, or what is no file of one is in the way."""
    is_one = _is_shard(folder, folder / "data" / "index.js")
    if folder.exists() and any(folder.iterdir()) and not is_one:
        raise FileExistsError(f"{folder} holds files and no explorer, which goes there: move them elsewhere")
    ours = set(unfinished_files(_work(folder)))
    if foreign := [path for path in page_files(_work(folder)) if path not in ours]:
        raise FileExistsError(
            f"{foreign[0]} is no file of an explorer, and one is to be written there: move it elsewhere"
        )


def _work(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def page_files(folder: Path) -> list[Path]:
    """Files of the page in `folder`, by their names; what else lies there is someone's own."""
    fixed = [folder / name for name in ("index.html", "data/index.js", *(f"assets/{name}" for name in _ASSETS))]
    return [path for path in fixed if path.is_file()] + _shard_files(folder)


def _shard_files(folder: Path) -> list[Path]:
    shards = (folder / "data" / kind for kind in ("features", "anchors"))
    return [path for kind in shards for path in sorted(kind.glob("*/*.js")) if path.stem.isdecimal()]


def unfinished_files(work: Path) -> list[Path]:
    """Files of the page in a folder where it was being written, by name and content, the last one perhaps cut off."""
    return [path for path in page_files(work) if not path.is_symlink() and _begins_as_ours(work, path)]


def _begins_as_ours(work: Path, path: Path) -> bool:
    kind, _, name = path.relative_to(work).with_suffix("").as_posix().partition("/")
    if kind != "data":
        return asset(path.name).encode().startswith(path.read_bytes())
    begin = f"archsae.receive({json.dumps(name)},".encode()
    return begin.startswith(path.read_bytes()[: len(begin)])


def _move_into(folder: Path, work: Path, files: Iterable[Path]) -> None:
    """Move files of `work` into `folder`; of what lies there, only an earlier explorer's own files go."""
    for old in _shard_files(folder):
        if _is_shard(folder, old):
            old.unlink()
    for path in files:
        target = folder / path.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    for place, _, _ in os.walk(work, topdown=False):
        if not os.listdir(place):
            os.rmdir(place)


def _is_shard(folder: Path, path: Path) -> bool:
    """Whether a file is one of an explorer's data, by its place and by how it begins."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size > 0 and _begins_as_ours(folder, path)


def _bar(items: Iterable[Any], label: str, progress: bool) -> Iterable[Any]:
    return tqdm(items, desc=label, unit="file", disable=not progress)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
