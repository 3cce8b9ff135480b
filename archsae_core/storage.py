"""Results on disk: content-addressed, sealed with hashes, written so that a killed run leaves nothing half-written."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

MANIFEST = "manifest.json"
WRITTEN = ".written"
"""In a folder that is being built: name and SHA-256 of each file before it is put in place."""
ANY = "*"
"""Its hash where the file is written in place."""
PARTIAL = ".partial"
"""Ending of the name of a folder that is being built."""
NEW = ".new"
"""Before that ending, while what a build will continue from is written."""
MARKER = ".archsae"
"""In a folder that this project made: its kind and name. What has none is someone else's and is never deleted."""
BUILD = "build"
"""Kind of a folder that is being built; a sealed one has its manifest instead."""
KEPT = ".kept"
"""Ending of the name of a folder with what is not ours of one that was in the way."""
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
"""Variables that name a repository to git, as they do while one of its hooks runs."""
REPAIR = "ARCHSAE_REPAIR"
"""Set in the environment: damaged artefacts are named in a warning and made again; otherwise they are an error."""


class CorruptArtifact(RuntimeError):
    """A stored file is missing, truncated or altered; the message names it and the fix."""


def jsonable(value: Any) -> Any:
    """`value` with dataclasses, tuples and paths and numbers of NumPy turned into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or torch
        return value.item()
    return str(value) if isinstance(value, Path) else value


def canonical_hash(value: Any) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON (sorted keys, no NaN).

    Raises ValueError for what JSON has not, and for what is nested too deeply.
    """
    try:
        text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def switched_on(name: str) -> bool:
    """Whether a variable of the environment is set to anything but what says no: empty, 0, false, no, off."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def cache_dir() -> Path:
    """Folder for downloaded models and texts: $ARCHSAE_CACHE, from the working directory, else ~/.cache/archsae."""
    return Path(os.path.abspath(os.path.expanduser(os.environ.get("ARCHSAE_CACHE") or "~/.cache/archsae")))


def write_atomically(
    path: str | Path, write: Callable[[Path], object], note: Callable[[Path], object] | None = None
) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it into place.

    `note` is given the finished temporary file before the rename, for who keeps a record of files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if path.parent.suffix == PARTIAL:
            _note_written(path, file_sha256(temporary))
        if note is not None:
            note(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def note_in_place(path: Path) -> None:
    """Note a file that is written where it stands, so that its hash is not known before the folder is sealed."""
    if path.parent.suffix == PARTIAL:
        _note_written(path, ANY)


def _note_written(path: Path, digest: str) -> None:
    # Before the rename: a process killed in between leaves the old file, whose hash is noted too.
    append_entries(path.parent / WRITTEN, [(path.name, digest)])


def append_entries(record: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Add names of files with their hashes to a record, a line each, on the disk when this returns.

    A line that a kill cut short is ended first, so that it takes none of these with it.
    """
    lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    with open(record, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_entries(record: Path) -> list[tuple[str, str]]:
    """What `append_entries` wrote. A line that is none, as one that a kill cut short, is passed over."""
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() and not record.is_symlink() else ""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            match parse_json(line):
                case [str(name), str(digest)]:
                    found.append((name, digest))
    return found


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (ValueError): JSON has neither."""
    text = json.dumps(jsonable(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def parse_json(text: str, **options: Any) -> Any:
    """`json.loads`, which raises ValueError also for what is nested too deeply."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | Path, *, fix: str | None = None) -> Any:
    """Read a JSON file. Raises CorruptArtifact naming the file where it does not parse, and `fix`.

    None takes what is to be done with a folder of the store.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        fix = recomputing(Path(path).parent) if fix is None else fix
        raise CorruptArtifact(f"{path} is not readable JSON ({error}): {fix}") from error


def environment() -> dict[str, str]:
    """Versions, commit and processor that a result was made with, and the day (UTC)."""
    made = {"commit": _commit(), "device": _device(), "python": ".".join(map(str, sys.version_info[:3]))}
    return _versions() | made | {"date": time.strftime("%Y-%m-%d", time.gmtime())}


@functools.cache  # a process runs what it has loaded, whatever is installed or committed meanwhile
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "scikit-learn", "numpy")}


def _device() -> str:
    # Not imported for its own sake: where no stage needed torch, none ran on a GPU.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


@functools.cache
def _commit() -> str:
    """Of the repository that holds this code, `-dirty` where a package of it was changed since; else `unknown`."""
    try:
        if not _git("ls-files", Path(__file__).name):  # ours lies in somebody's repository, as an environment does
            return "unknown"
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", "../archsae_study")
        return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + "-dirty" * bool(changed)
    except OSError:
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says of the repository that this code lies in, whichever one a hook's variables name."""
    environment = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    options = dict(cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    return subprocess.run(["git", "--no-optional-locks", *arguments], **options, check=False).stdout.strip()


def mark(folder: Path, kind: str) -> None:
    """Make a folder of a kind (`store`, `run` or `BUILD`) where there is none, and leave a sound marker in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_marked(folder, kind):
        write_atomically(folder / MARKER, lambda path: path.write_text(_marker(folder, kind), encoding="utf-8"))


def is_marked(folder: Path, kind: str) -> bool:
    """Whether `mark` made or marked the folder, under the name that it still has: what is renamed by hand is not."""
    marker = folder / MARKER
    return marker.is_file() and not marker.is_symlink() and marker.read_bytes() == _marker(folder, kind).encode()


def _marker(folder: Path, kind: str) -> str:
    # a folder that is being built has two names before its last one
    return f"archsae {kind} {folder.name.removesuffix(PARTIAL).removesuffix(NEW)}\n"


class Store:
    """Artefacts under `root/stage/hash`, one sealed folder each."""

    def __init__(self, root: str | Path, *, marked: bool = False) -> None:
        self.root, self.marked = Path(root), marked
        self._verified: set[Path] = set()

    def path(self, stage: str, recipe: Mapping[str, Any]) -> Path:
        """Folder where the artefact with this recipe is or will be. Raises ValueError for a stage that is no name."""
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", stage):
            raise ValueError(f"stage = {stage!r}: use lower-case letters, digits, - and _")
        return self.root / stage / canonical_hash(recipe)

    def artifact(self, stage: str, recipe: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Folder of the artefact; built first where it does not exist.

        `build(work)` fills a folder that outlives a killed process, so it may find its own earlier files there and
        continue. The finished folder is sealed with hashes of its files and renamed. A second process that wants the
        same artefact waits for the first. Raises CorruptArtifact where a file is missing, altered or foreign; where
        $ARCHSAE_REPAIR is set, the artefact is made again instead.
        """
        folder = self.path(stage, recipe)
        if folder in self._verified and folder.exists():
            return folder
        if not _sound(folder):
            if self.marked:
                mark(self.root, "store")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not _sound(folder):  # still: another process may have built it by now
                    _make_way(folder, listed_files(folder) or ())
                    self._build(folder, recipe, build)
        self._verified.add(folder)
        return folder

    def _build(self, folder: Path, recipe: Mapping[str, Any], build: Callable[[Path], None]) -> None:
        work = folder.with_name(folder.name + PARTIAL)
        if not _sound(work, _verify_partial):
            _make_way(work, noted_files(work))
        mark(work, BUILD)
        _drop_temporaries(work)
        start = time.perf_counter()
        build(work)
        seal(work, recipe, time.perf_counter() - start)
        for name in (WRITTEN, MARKER):
            (work / name).unlink(missing_ok=True)
        os.replace(work, folder)

    def begin(self, stage: str, recipe: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
        """Let `fill(work)` write files that the artefact's `build` will continue from.

        Does nothing where the artefact exists, or where another process has begun it.
        """
        folder = self.path(stage, recipe)
        work, new = folder.with_name(folder.name + PARTIAL), folder.with_name(f"{folder.name}{NEW}{PARTIAL}")
        with suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
            if not folder.exists() and not work.exists():
                _drop_temporaries(new)
                _make_way(new, noted_files(new))
                mark(new, BUILD)
                fill(new)
                os.replace(new, work)


def seal(folder: Path, recipe: Mapping[str, Any], seconds: float) -> None:
    """Write the manifest of `folder`: recipe, size and SHA-256 of every file, seconds, environment."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, WRITTEN, MARKER)
    )
    listing = {str(path.relative_to(folder)): [path.stat().st_size, file_sha256(path)] for path in files}
    manifest = {"recipe": recipe, "files": listing, "seconds": round(seconds, 1), "environment": environment()}
    manifest = jsonable(manifest)
    write_json(folder / MANIFEST, manifest | {"seal": canonical_hash(manifest)})


def listed_files(folder: Path) -> set[str] | None:
    """Names of the files of a sealed artefact, its manifest among them; None for any other folder."""
    manifest = _manifest_of(folder)
    return {MANIFEST, *manifest["files"]} if manifest else None


def seconds_taken(folder: Path) -> float:
    """Seconds that making a sealed artefact took, as its manifest says; 0 for any other folder."""
    manifest = _manifest_of(folder)
    return manifest.get("seconds", 0.0) if manifest else 0.0


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    try:
        return None if folder.is_symlink() else _sealed(folder)
    except (CorruptArtifact, OSError):
        return None


def noted_files(work: Path) -> dict[str, set[str]]:
    """Names of the files that were put into a folder that is being built, with the hashes that each has had."""
    noted: dict[str, set[str]] = {}
    for name, digest in read_entries(work / WRITTEN):
        noted.setdefault(name, set()).add(digest)
    return noted


def _drop_temporaries(work: Path) -> None:
    """Delete what a process left in a folder that is being built when it was killed while it wrote."""
    for leftover in work.glob(".*.tmp"):
        leftover.unlink()


def _make_way(folder: Path, ours: Collection[str]) -> None:
    """Delete those files of a folder; what else it holds is someone else's, and kept beside it under another name."""
    if not os.path.lexists(folder):
        return
    if not folder.is_symlink():
        marked = is_marked(folder, BUILD)
        own = (*ours, *[WRITTEN] * bool(ours or marked), *[MARKER] * marked)
        for path in [folder / name for name in own]:
            if path.is_file() and folder.resolve() in path.resolve().parents:
                path.unlink()
        for place, _, _ in os.walk(folder, topdown=False):
            if not os.listdir(place):
                os.rmdir(place)
    if os.path.lexists(folder):
        keep(folder)


def keep(path: Path) -> None:
    """Rename what nobody may replace, and say so."""
    names = (path.with_name(f"{path.name}{KEPT}{number or ''}") for number in itertools.count())
    kept = next(name for name in names if not os.path.lexists(name))
    os.rename(path, kept)
    logging.getLogger(__name__).warning("kept %s: it is not as it was written; delete it if it is of no use", kept)


def recomputing(folder: Path) -> str:
    """What to do about a damaged folder of the store."""
    return f"delete the folder {folder}, or run again with --repair, to recompute it"


def _sound(folder: Path, check: Callable[[Path], None] | None = None) -> bool:
    """Whether the folder exists and passes `check`. Raises CorruptArtifact unless $ARCHSAE_REPAIR is set."""
    if not folder.exists():
        return False
    try:
        (check or verify)(folder)
    except CorruptArtifact as error:
        if not switched_on(REPAIR):
            raise
        logging.getLogger(__name__).warning("made again: %s", error)
        return False
    return True


def verify(folder: Path) -> None:
    """Check every file of a sealed folder against its manifest. Raises CorruptArtifact naming the file."""
    fix, manifest = recomputing(folder), _sealed(folder)
    for name, (size, digest) in manifest["files"].items():
        _check_file(folder / name, size, digest, fix)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(found - {*manifest["files"], MANIFEST}):
        raise CorruptArtifact(f"{folder / name} is not in {MANIFEST}: move it elsewhere if it is yours, or {fix}")


def _sealed(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder. Raises CorruptArtifact where it is missing, altered or another's."""
    fix = recomputing(folder)
    if not (folder / MANIFEST).is_file():
        raise CorruptArtifact(f"{folder / MANIFEST} is missing: {fix}")
    manifest = read_json(folder / MANIFEST)
    sealed = isinstance(manifest, dict) and {"recipe", "files", "seal"} <= manifest.keys()
    try:
        if not sealed or canonical_hash({k: v for k, v in manifest.items() if k != "seal"}) != manifest["seal"]:
            raise ValueError
        name = canonical_hash(manifest["recipe"])
    except ValueError:
        raise CorruptArtifact(f"{folder / MANIFEST} was altered: {fix}") from None
    if name != folder.name:
        raise CorruptArtifact(f"{folder / MANIFEST} belongs to another artefact: {fix}")
    return manifest


def _check_file(path: Path, size: int, digest: str, fix: str) -> None:
    if not path.is_file():
        raise CorruptArtifact(f"{path} is missing: {fix}")
    if path.stat().st_size != size:
        raise CorruptArtifact(f"{path} has {path.stat().st_size} bytes instead of {size}: {fix}")
    if file_sha256(path) != digest:
        raise CorruptArtifact(f"{path} was altered (SHA-256 differs from {MANIFEST}): {fix}")


def _verify_partial(work: Path) -> None:
    """Check what a broken build left against the hashes it noted; rows of activations, written in place, have none."""
    for name, digests in noted_files(work).items():
        if (work / name).is_file() and ANY not in digests and file_sha256(work / name) not in digests:
            raise CorruptArtifact(f"{work / name} was altered (SHA-256 differs from {WRITTEN}): {recomputing(work)}")
