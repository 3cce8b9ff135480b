"""Reading documents from .txt, .jsonl and .parquet files, local dataset folders and datasets of the hub."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from archsae_core.config import ConfigError, CorpusConfig
from archsae_core.data.hub import HubError, HubUnreachable, hub_commit

SUFFIXES = (".txt", ".jsonl", ".parquet")


class TextError(ConfigError):
    """A text that cannot be used; the message names the Config field and the fix."""


class Rows(NamedTuple):
    """Documents as read: one string each, and one label each where the source has them."""

    texts: Sequence[str]
    labels: Sequence[str] | None


def read(config: CorpusConfig) -> Rows:
    """Documents of a local file, a local folder in the hub's layout, or a dataset of the hub. Raises TextError."""
    path = Path(config.text).expanduser()
    if path.is_file() or path.suffix in SUFFIXES:
        return _read_file(path, config)
    return _read_dataset(config)


def _bad(config: CorpusConfig, reason: str) -> TextError:
    return TextError(f"text = {config.text!r}: {reason}")


def _read_file(path: Path, config: CorpusConfig) -> Rows:
    if not path.is_file():
        raise _bad(config, "there is no such file: give the path of a file that exists")
    if path.suffix not in SUFFIXES:
        raise _bad(config, f"unknown kind of file: use one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise _bad(config, "the file is empty: give a file with documents")
    if path.suffix == ".parquet":
        return _read_parquet(path, config)
    text = _decode(path, config)
    if path.suffix == ".jsonl":
        return _read_jsonl(text, config)
    if config.label_field is not None:
        raise TextError(f"label_field = {config.label_field!r}: a .txt file has no columns: set it to None")
    return Rows(_documents(text), None)


def _decode(path: Path, config: CorpusConfig) -> str:
    content = path.read_bytes()
    if b"\0" in content:
        raise _bad(config, "the file holds NUL bytes, so it is binary or UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _bad(config, f"not UTF-8 at byte {error.start}: save it as UTF-8") from error


def _documents(text: str) -> list[str]:
    """Blocks between blank lines, or lines where there is no blank line, or whole articles of WikiText."""
    lines = text.split("\n")
    if (articles := _articles(lines)) is not None:
        return articles
    blocks = [block.strip() for block in re.split(r"\n[^\S\n]*\n", text) if block.strip()]
    return blocks if len(blocks) > 1 else [line for line in lines if line.strip()]


_HEADING = re.compile(r" ?= [^=\s](.*[^=\s])? = *\n?")


def _articles(rows: Sequence[str]) -> list[str] | None:
    """Join the lines of WikiText into articles, which start at ` = Title = `; None for any other text.

    WikiText is told by its first row that is not empty: such a heading, where ` = = Section = = ` does not count.
    """
    rows = [row for row in rows if row.strip()]
    if not rows or not _HEADING.fullmatch(rows[0]):
        return None
    starts = [i for i, row in enumerate(rows) if _HEADING.fullmatch(row)]
    ends = [*starts[1:], len(rows)]
    return ["\n".join(row.strip() for row in rows[start:end]) for start, end in zip(starts, ends, strict=True)]


def _read_jsonl(text: str, config: CorpusConfig) -> Rows:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise _bad(config, f"line {number} is not JSON ({error}): write one object a line") from error
        if not isinstance(rows[-1], dict):
            raise _bad(config, f"line {number} is no JSON object: write one object a line")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _select({name: [row.get(name) for row in rows] for name in names}, config)


def _read_parquet(path: Path, config: CorpusConfig) -> Rows:
    try:
        names = pyarrow.parquet.read_schema(path).names
        wanted = [name for name in names if name in (config.text_field, config.label_field)]
        table = pyarrow.parquet.read_table(path, columns=wanted)
    except (pyarrow.ArrowException, OSError) as error:
        raise _bad(config, f"not a readable parquet file ({error}): write it again") from error
    return _select({name: [] for name in names} | table.to_pydict(), config)


def _select(columns: Mapping[str, Sequence[Any]], config: CorpusConfig) -> Rows:
    """The text and label columns. Rows without text are dropped; WikiText lines become articles."""
    for field in ("text_field", "label_field"):
        name = getattr(config, field)
        if name is not None and name not in columns:
            known = ", ".join(columns) or "none"
            raise TextError(f"{field} = {name!r}: {config.text!r} has no such column: its columns are {known}")
    kept = [i for i, text in enumerate(columns[config.text_field]) if text is not None]
    texts = [_checked(columns[config.text_field][i], config) for i in kept]
    if config.label_field is None:
        return Rows(_articles(texts) or texts, None)
    labels = [columns[config.label_field][i] for i in kept]
    if None in labels:
        raise TextError(f"label_field = {config.label_field!r}: some documents have no label: set it to None")
    return Rows(texts, [str(label) for label in labels])


def _checked(text: Any, config: CorpusConfig) -> str:
    if not isinstance(text, str):
        kind = type(text).__name__
        raise TextError(f"text_field = {config.text_field!r}: holds {kind}, not text: name another column")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _bad(config, f"half a surrogate pair in {text[:40]!r}: write it as valid Unicode") from error
    return text


def _read_dataset(config: CorpusConfig) -> Rows:
    """Split `train` of a dataset: of a folder on this machine, of the hub, or of its cache where the hub is down."""
    import datasets  # takes seconds to import, and most studies read no dataset

    name, _, subset = config.text.partition(":")
    folder = Path(name).expanduser()
    source, commit, down = (str(folder), None, None) if folder.is_dir() else (name, *_commit(name, config))
    try:
        with _quiet_datasets(offline=down is not None):
            dataset = datasets.load_dataset(source, subset or None, split="train", revision=commit)
    except (OSError, ValueError, RuntimeError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        if down is not None:
            fix = "use a local .txt, .jsonl or .parquet file, a local folder, or bbc-news"
            raise _bad(config, f"neither a file or folder here, nor cached; {down}: {fix}") from error
        fix = "check the name (`name:config` where there are several configs) and that it has a split `train`"
        raise _bad(config, f"the dataset cannot be loaded ({' '.join(str(error).split())}): {fix}") from error
    return _select(_plain(dataset, config), config)


def _commit(name: str, config: CorpusConfig) -> tuple[str | None, HubUnreachable | None]:
    """Commit of a dataset of the hub, or why it is not known."""
    try:
        return hub_commit(name, "dataset", config.text_revision), None
    except HubUnreachable as error:
        return None, error
    except HubError as error:
        raise _bad(config, f"neither a file nor a folder here, and {error}") from error


@contextmanager
def _quiet_datasets(*, offline: bool) -> Iterator[None]:
    """No bars and messages inside the block; offline, only the cache is asked, without half a minute of retries."""
    import datasets

    before = (
        datasets.config.HF_HUB_OFFLINE,
        datasets.utils.are_progress_bars_disabled(),
        datasets.logging.get_verbosity(),
    )
    datasets.config.HF_HUB_OFFLINE = offline or before[0]
    datasets.utils.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before[0]
        if not before[1]:
            datasets.utils.enable_progress_bars()
        datasets.logging.set_verbosity(before[2])


def _plain(dataset: Any, config: CorpusConfig) -> dict[str, Sequence[Any]]:
    """Columns of a dataset; class numbers turned into class names."""
    columns: dict[str, Sequence[Any]] = {name: [] for name in dataset.column_names}
    for name in {config.text_field, config.label_field} & columns.keys():
        to_names = getattr(dataset.features[name], "int2str", None)
        columns[name] = to_names(dataset[name][:]) if to_names else dataset[name][:]
    return columns
