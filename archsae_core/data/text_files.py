"""Reading documents from .txt, .jsonl, .csv and .parquet files, local dataset folders and datasets of the hub.

`datasets` reads what has its layout. Single files are read here, since `datasets` would lose what people need: the
number of a line that is no JSON, columns with values of several types, blocks and articles of a .txt file. It would
also copy each file into its cache.
"""

import csv
import datetime
import decimal
import math
import re
import statistics
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from archsae_core.config import ConfigError, CorpusConfig, shortened, shown
from archsae_core.data.hub import HubError, HubUnreachable, hub_commit
from archsae_core.storage import parse_json

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
LINES_A_BLOCK = 10
"""Blocks of a .txt file with more lines than this in the median may be lines that stray blank ones divide."""


class TextError(ConfigError):
    """A text that cannot be used; the message names the Config field and the fix."""


class Rows(NamedTuple):
    """Documents as read: one string each, and one label each where the source has them."""

    texts: Sequence[str]
    labels: Sequence[str | None] | None
    sources: Sequence[str] | None = None
    """The part of the text that each comes from, where it has parts."""
    notes: tuple[str, ...] = ()
    """What people should know about how the text was read."""
    empty: int = 0
    """Rows that were left out because they hold no text."""


def read(config: CorpusConfig) -> Rows:
    """Documents of a local file, a local folder in the hub's layout, or a dataset of the hub. Raises TextError."""
    path = Path(config.text).expanduser()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise _bad(config, "is a pipe or a device: save what it gives as a file, and give that")
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        return _read_file(path, config)
    return _read_dataset(config)


def _bad(config: CorpusConfig, reason: str) -> TextError:
    return TextError(f"text = {shown(config.text)}: {reason}")


def _read_file(path: Path, config: CorpusConfig) -> Rows:
    suffix = path.suffix.lower()
    _refuse_unused(suffix, config)
    if path.is_dir() and suffix == ".parquet":
        return _read_parquet(path, config)
    if path.is_dir():
        raise _bad(config, "is a folder: give a file in it; of folders, those named .parquet are read")
    if not path.is_file():
        raise _bad(config, "there is no such file: give the path of a file that exists")
    if suffix not in SUFFIXES:
        raise _bad(config, f"unknown kind of file: use one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise _bad(config, "the file is empty: give a file with documents")
    if suffix == ".parquet":
        return _read_parquet(path, config)
    text = _decode(path, config)
    if suffix == ".jsonl":
        return _read_jsonl(text, config)
    if suffix == ".csv":
        return _read_csv(text, config)
    return _read_txt(text, config)


def refuse_unused(config: CorpusConfig, names: Iterable[str], reason: str) -> None:
    """Raise TextError for a field of `names` that differs from its default, since it would have no effect."""
    for name in names:
        value = getattr(config, name)
        default = getattr(CorpusConfig, name)
        if value != default:
            raise TextError(f"{name} = {shown(value)}: {reason}: leave it at {default!r}")


def _refuse_unused(suffix: str, config: CorpusConfig) -> None:
    refuse_unused(config, ["text_revision"], f"{config.text!r} is a file, and only datasets of the hub have revisions")
    if suffix == ".txt":
        refuse_unused(config, ["text_field", "label_field"], "a .txt file has no columns")
    else:
        refuse_unused(config, ["text_layout"], "it divides .txt files only")


def _decode(path: Path, config: CorpusConfig) -> str:
    content = path.read_bytes()
    if b"\0" in content:
        raise _bad(config, "the file holds NUL bytes, so it is binary or UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(config, f"not UTF-8 at byte {error.start}: save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_txt(text: str, config: CorpusConfig) -> Rows:
    """Documents by `config.text_layout`; `auto` also knows the articles of WikiText."""
    lines = text.split("\n")
    if config.text_layout == "auto" and (articles := _articles(lines)) is not None:
        return Rows(articles, None)
    blocks = [block.strip() for block in re.split(r"\n[^\S\n]*\n", text) if block.strip()]
    if config.text_layout == "lines" or (config.text_layout == "auto" and len(blocks) < 2):
        return Rows([line for line in lines if line.strip()], None)
    size = statistics.median(block.count("\n") + 1 for block in blocks) if blocks else 0
    if config.text_layout == "blocks" or size <= LINES_A_BLOCK:
        return Rows(blocks, None)
    warning = (
        f"text = {config.text!r}: blank lines divide it into {len(blocks)} documents with a median of {size:.0f} "
        "lines: set text_layout to lines if each line is a document, to blocks if this is right"
    )
    return Rows(blocks, None, notes=(warning,))


_HEADING = re.compile(r" ?= [^=\s](.*[^=\s])? = *\n?")


def _articles_of_rows(rows: Sequence[str]) -> list[str] | None:
    """The articles of WikiText as its datasets have it, a line a row; None for any other text.

    There each line begins with a space and ends in a line break: of other rows, one that looks like a title stays one.
    """
    lines = [row for row in rows if row]
    whole = all(line.startswith(" ") and line.endswith("\n") for line in lines)
    return _articles(lines) if whole else None


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
            rows.append(parse_json(line, object_pairs_hook=_object))
        except KeyError as error:
            raise _bad(
                config, f"line {number} names {shown(*error.args)} twice: give each value a name of its own"
            ) from error
        except ValueError as error:
            raise _bad(config, f"line {number} is not JSON ({error}): write one object a line") from error
        if not isinstance(rows[-1], dict):
            raise _bad(config, f"line {number} is no JSON object: write one object a line")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _select({name: [row.get(name) for row in rows] for name in names}, config)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises KeyError for a name that it holds twice, of which Python would keep the last in silence."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found


def _read_csv(text: str, config: CorpusConfig) -> Rows:
    types = dict.fromkeys([config.text_field, *filter(None, [config.label_field])], pyarrow.string())
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(text.encode()),
            # one thread, so that an error names its row; blocks that are longer than any document
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=2**28),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )
    except pyarrow.ArrowException as error:
        raise _bad(
            config, f"not a readable CSV file ({shortened(str(error), 300)}): write it again, with a header"
        ) from error
    if '"' in text and (row := _misquoted(text)) is not None:
        reason = (
            f"row {row} begins a value with a quotation mark that is not closed before a comma or the end of a line"
        )
        raise _bad(config, f"{reason}: close it, and double every mark inside")
    for name in filter(None, (config.text_field, config.label_field)):
        if table.column_names.count(name) > 1:
            raise _bad(config, f"its header names {name!r} twice: give each column a name of its own")
    return _select(table.to_pydict(), config)


def _misquoted(text: str) -> int | None:
    """Number of the first row of a CSV file, the header being 0, with a quoted value that does not end as one.

    None where there is none. pyarrow takes what follows, other rows too, for a part of such a value.
    """
    number, before = 0, csv.field_size_limit(sys.maxsize)
    try:
        for row in csv.reader((f"{line}\n" for line in text.split("\n")), strict=True):
            number += bool(row)
    except csv.Error:
        return number
    finally:
        csv.field_size_limit(before)
    return None


def _read_parquet(path: Path, config: CorpusConfig) -> Rows:
    """Columns of one file, or of a folder of parts as Spark writes it; names of classes where `datasets` wrote them."""
    import pyarrow.dataset  # brings pandas, which takes seconds

    try:
        if path.is_dir():
            _check_parts(path, config)
        found = pyarrow.dataset.dataset(path, format="parquet", partitioning="hive")
        wanted = [name for name in found.schema.names if name in (config.text_field, config.label_field)]
        columns = {name: [] for name in found.schema.names} | found.to_table(columns=wanted).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise _bad(config, f"not a readable parquet file ({error}): write it again") from error
    if config.label_field in columns and b"huggingface" in (found.schema.metadata or {}):
        import datasets

        feature = datasets.Features.from_arrow_schema(found.schema)[config.label_field]
        columns[config.label_field] = _class_names(feature, columns[config.label_field])
    return _select(columns, config)


def _check_parts(folder: Path, config: CorpusConfig) -> None:
    """Raise TextError unless every file of a folder is a part with the columns that are read, each of one kind.

    pyarrow takes the columns of the first part for those of all, fills what another lacks with nulls, and makes texts
    of its numbers.
    """
    import pyarrow.dataset  # as above

    fix = "write all parts with the same columns, or give one file"
    kinds: dict[str, dict[str, str]] = {}
    for file in pyarrow.dataset.dataset(folder, format="parquet", schema=pyarrow.schema([])).files:
        name = Path(file).relative_to(folder).as_posix()
        try:
            schema = pyarrow.parquet.read_schema(file)
        except (pyarrow.ArrowException, OSError) as error:
            reason = f"{name} in the folder is no readable parquet file: move it elsewhere, or write it again"
            raise _bad(config, reason) from error
        kinds[name] = {field.name: _kind(field, schema.metadata or {}) for field in schema}
    if not kinds:
        raise _bad(config, "the folder holds no parquet file: give a file, or a folder with parts")
    folders = {part for name in kinds for part in Path(name).parts[:-1]}
    for name in filter(None, (config.text_field, config.label_field)):
        shadowing = next((part for part in sorted(folders) if part.startswith(f"{name}=")), None)
        if shadowing and any(name in kind for kind in kinds.values()):
            reason = f"column {name!r} is in the files and in the name of the folder {shadowing!r}: rename one"
            raise _bad(config, reason)
    for name in filter(None, (config.text_field, config.label_field)):
        holding = {part: kind[name] for part, kind in kinds.items() if name in kind}
        if lacking := kinds.keys() - holding.keys() if holding else ():
            reason = f"{min(lacking)} has no such column, and {min(holding)} has: {fix}"
        elif len(set(holding.values())) > 1:
            one = min(holding)
            other = next(part for part in sorted(holding) if holding[part] != holding[one])
            reason = (
                f"it is {shortened(holding[one], 100)} in {one} and {shortened(holding[other], 100)} in {other}: {fix}"
            )
        else:
            continue
        raise _bad(config, f"column {name!r}: {reason}")


def _kind(field: pyarrow.Field, metadata: Mapping[bytes, bytes]) -> str:
    """What a column of a parquet file holds, with the names of its classes where `datasets` wrote them."""
    kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    classes = parse_json(metadata.get(b"huggingface", b"{}").decode()).get("info", {}).get("features", {})
    names = classes.get(field.name, {}).get("names") if isinstance(classes.get(field.name), dict) else None
    return f"{str(kind).removeprefix('large_')}{f' of the classes {names}' if names else ''}"


def _select(columns: Mapping[str, Sequence[Any]], config: CorpusConfig) -> Rows:
    """The text and label columns. Rows without text are dropped; WikiText lines become articles."""
    for field in ("text_field", "label_field"):
        name = getattr(config, field)
        if name is not None and name not in columns:
            known = shortened(", ".join(columns) or "none", 300)
            where = shown(config.text)
            raise TextError(f"{field} = {shown(name)}: {where} has no such column: its columns are {known}")
    kept = [i for i, text in enumerate(columns[config.text_field]) if text is not None]
    texts = [_checked(columns[config.text_field][i], config) for i in kept]
    if config.label_field is None:
        return Rows(_articles_of_rows(texts) or texts, None, empty=len(columns[config.text_field]) - len(kept))
    given = columns[config.label_field]
    labels = [_label(given[i], i, config) for i in kept]
    first: dict[Any, int] = {}
    for label, row in zip(labels, kept, strict=True):
        for value in (label, given[row]):  # "1" and 1 are written alike, 1 and 1.0 are the same number
            other = first.setdefault(value, row)
            if type(given[row]) is not type(given[other]):
                both = f"rows {other + 1} and {row + 1} hold {given[other]!r} and {given[row]!r}"
                reason = f"{both}, which mean one topic: write labels in one way"
                raise TextError(f"label_field = {config.label_field!r}: {reason}")
    return Rows(texts, labels, empty=len(columns[config.text_field]) - len(kept))


def _label(value: Any, row: int, config: CorpusConfig) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()
    if missing:
        reason = (
            f"some documents have no label, such as row {row + 1} ({shown(value)}): give all one, or set it to None"
        )
        raise TextError(f"label_field = {config.label_field!r}: {reason}")
    if not isinstance(value, str | int | float | decimal.Decimal | datetime.date):
        kind = type(value).__name__
        reason = f"row {row + 1} holds {kind}, not one label: name another column, or set it to None"
        raise TextError(f"label_field = {config.label_field!r}: {reason}")
    return unicodedata.normalize("NFC", _checked(str(value), config)).strip()


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
    refuse_unused(config, ["text_layout"], "it divides .txt files only")
    if folder.is_dir():
        refuse_unused(
            config, ["text_revision"], f"{config.text!r} is a folder, and only datasets of the hub have revisions"
        )
    if folder.is_dir():
        _check_kinds(folder, config)
    source, commit, down = (str(folder), None, None) if folder.is_dir() else (name, *_commit(name, config))
    try:
        with _quiet_datasets(offline=down is not None), TemporaryDirectory() as cache:
            # of a folder, `datasets` would take its own copy for as good as the files where their times are the same
            options = {"cache_dir": cache, "keep_in_memory": True} if folder.is_dir() else {}
            if folder.is_dir():
                _check_all_read(folder, datasets.load_dataset_builder(source, subset or None, cache_dir=cache), config)
            dataset = datasets.load_dataset(source, subset or None, split="train", revision=commit, **options)
    except TextError:
        raise
    except (OSError, ValueError, RuntimeError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        if down is not None:
            fix = f"use a local {', '.join(SUFFIXES)} file, a local folder, or bbc-news"
            raise _bad(config, f"neither a file or folder here, nor cached; {down}: {fix}") from error
        fix = "check the name (`name:config` where there are several configs) and that it has a split `train`"
        raise _bad(config, f"the dataset cannot be loaded ({' '.join(str(error).split())}): {fix}") from error
    left_out = {name: split.num_examples for name, split in (dataset.info.splits or {}).items() if name != "train"}
    found = _select(_plain(dataset, config), config)
    if not left_out or not folder.is_dir():
        return found
    said = ", ".join(f"{name} ({rows:,} rows)" for name, rows in left_out.items())
    return found._replace(notes=(*found.notes, f"text = {config.text!r}: its split train is read, not {said}"))


def _check_kinds(folder: Path, config: CorpusConfig) -> None:
    """Raise TextError for a folder of which `datasets` would read one kind of file alone, or otherwise than a file."""
    kinds = sorted({_kind_of_file(path) for path in documents_in(folder)})
    if ".txt" in kinds:
        raise _bad(config, "it holds .txt files, of which every line would be a document: give one file instead")
    if len(kinds) > 1:
        raise _bad(config, f"it holds {' and '.join(kinds)} files, of which one kind would be read: give one of them")
    if ".csv" in kinds:
        raise _bad(config, "it holds .csv files, in which 01 would become 1 and NA nothing: give one file instead")


def documents_in(folder: Path) -> list[Path]:
    """Files that may hold documents; `datasets` passes over what is hidden, and so is it here."""
    found = (path for path in folder.rglob("*") if path.is_file() and _kind_of_file(path))
    return sorted(
        path for path in found if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
    )


def _kind_of_file(path: Path) -> str:
    """Its suffix, with that of a compression; empty where it holds no documents."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    kinds = {*SUFFIXES, ".json", ".tsv"}
    if last in kinds:
        return last
    return before + last if last in COMPRESSED and before in kinds else ""


def _check_all_read(folder: Path, builder: Any, config: CorpusConfig) -> None:
    """Raise TextError where `datasets` takes some files of a folder, by their names, and drops the rest."""
    if len(builder.builder_configs) > 1:  # each has files of its own
        return
    read = {Path(file).resolve() for files in builder.config.data_files.values() for file in files}
    left = [path for path in documents_in(folder) if path.resolve() not in read]
    if left:
        name = shown(str(left[0].relative_to(folder)))
        reason = f"{len(left)} of its files, such as {name}, would not be read, since others have a split in their name"
        raise _bad(config, f"{reason}: give one file, or name all of them train-….{left[0].suffix[1:]}")


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
        columns[name] = _class_names(dataset.features[name], dataset[name][:])
    return columns


def _class_names(feature: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Names of class numbers; −1 stands for a missing label. Values of any other feature are returned as they are."""
    names = getattr(feature, "names", None)
    if names is None:
        return values
    return [names[value] if value is not None and 0 <= value < len(names) else None for value in values]
