"""Bad inputs and the error that each gets: data for test_bad_inputs.py; run as a script, it prints them."""

import ast
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pyarrow
import pyarrow.parquet
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from archsae_core.config import TrainingConfig, shown
from archsae_core.data import random_model
from archsae_core.data.hub import quiet_transformers
from archsae_core.interop import open_sae, to_saelens
from archsae_core.models.about import About
from archsae_core.models.dictionary import ArchetypalDictionary, FreeDictionary, SparseArchetypalDictionary
from archsae_core.models.sae import SAE, described, save_sae
from archsae_core.models.training import Trainer
from archsae_study.__main__ import main as command_line
from archsae_study.engine.study import Study
from archsae_study.report import Report
from archsae_study.settings.config import FIELDS, configure

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


class Bad(NamedTuple):
    """One bad input."""

    area: str
    what: str
    attempt: Callable[[Path], object]
    """Use the input, with a folder for its files; everything that is computed goes to `folder / "runs"`."""
    error: str
    """Regular expression of the error."""
    late: bool = False
    """Whether it shows in the activations only, so that work has begun."""


# --- parameters ---

VALUES = [
    ("delta", -0.1), ("delta", float("nan")), ("delta", float("inf")), ("delta", "wide"), ("delta", True), ("k", 0),
    ("delta", "1_0"),
    ("k", 2000), ("k", 2.5), ("n_features", 0), ("n_anchors", 0), ("steps", 0), ("batch_size", -1), ("batch_size", 1),
    ("lr", 0.0),
    ("lr", "fast"), ("w_lr", -1.0), ("w_step", "newton"), ("smoothing", 0.0), ("smoothing", 1.0), ("layer", -1),
    ("layer", 1.5), ("context", 1), ("dtype", "float16"), ("device", "tpu"), ("heldout_fraction", 0.0),
    ("heldout_fraction", 0.6), ("validation_fraction", 1), ("tokens", 0), ("anchor_tokens", -5), ("aux_k", 0),
    ("aux_coefficient", -1), ("dead_after", 0), ("checkpoint_every", 0), ("seed", -1), ("seed", 2**40),
    ("n_seeds", 0), ("n_seeds", 1), ("ablation_seeds", 1), ("text", ""), ("tokens", ""), ("text", ["a.txt", "b.txt"]),
    ("deltas", {"low": 0, "high": 1}), ("arms", {"topk-random-own"}), ("revision", 4e10), ("layer", "all"),
    ("arms", ["topk-random-own", "nothing"]), ("arms", []), ("arms", ["ra-own", "ra-own"]), ("deltas", []),
    ("deltas", "0,,1"), ("deltas", [-1.0]), ("deltas", [1, 1]), ("deltas", "[1, "), ("ablation_steps", 0),
    ("ablation_seeds", 0), ("longer_factor", 0), ("full_size_steps", -1),
    ("raw_full_size_steps", -1), ("published_full_size_steps", -1),
    ("other_settings", "perhaps"), ("heldout_tokens", 0), ("probe_tasks", -1), ("probe_prompts", 7),
    ("behaviour_tokens", 0), ("feature", 99999), ("feature", -1), ("outlier_factor", 0),
    ("outlier_factor", 0.99), ("context", 2), ("heldout_tokens", 1), ("kmeans_iterations", 0),
    ("unit_norm", "perhaps"), ("preset", "huge"), ("scheduler", "local:0"), ("scheduler", "local:many"),
    ("scheduler", "tcp://host"), ("scheduler", "http://host:1"), ("scheduler", "missing.json"), ("scheduler", "8786"),
    ("delta", Decimal("sNaN")), ("deltas", [Decimal("sNaN")]), ("k", 10**5000), ("delta", Fraction(10**400)),
    ("deltas", "[" * 100_000), ("bos", "x" * 100_000), ("text", "x" * 300), ("model", "x" * 300),
    ("other_model", "x" * 300), ("scheduler", "x" * 300), ("text", "a\0.txt"), ("model", "a\0"),
]  # fmt: skip
PARAMETERS = [
    Bad("parameter", f"{name} = {shown(value):.60}", lambda _, name=name, value=value: configure({name: value}), name)
    for name, value in VALUES
] + [
    Bad("parameter", "detla = 0.5", lambda _: configure({"detla": 0.5}), "unknown parameter 'detla'.*delta"),
    Bad("parameter", "a long name", lambda _: configure({"x" * 10_000: 1}), "unknown parameter 'xxx"),
]


def parameters_cell(path: Path) -> dict[str, Any]:
    """Names and values of a notebook's parameters."""
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return {line.target.id: ast.literal_eval(line.value) for line in ast.parse(source).body}


def _notebook(path: Path, name: str, value: Any) -> Bad:
    def attempt(_: Path) -> object:
        return Report.from_namespace(parameters_cell(path) | {name: value})

    return Bad("notebook", f"{path.stem}: {name} = {value!r}", attempt, name)


def _notebook_cases() -> list[Bad]:
    bad = {int: -3, float: "nan", str: None, bool: "perhaps"}
    cases = []
    for path in NOTEBOOKS:
        cases.append(_notebook(path, "detla", 0.5))
        for name in sorted(parameters_cell(path).keys() & FIELDS.keys()):  # `compute` is the report's own
            kind = next((kind for kind in (bool, int, float) if kind.__name__ in str(FIELDS[name])), str)
            if bad[kind] is not None:
                cases.append(_notebook(path, name, bad[kind]))
    return cases


# --- command line ---


def _run(arguments: list[str]) -> None:
    """Raise ValueError with what the command says where it refuses."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = command_line(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
    if status:
        raise ValueError(errors.getvalue())


def _command(what: str, arguments: list[str], error: str) -> Bad:
    return Bad("command line", what, lambda folder: _run([*arguments, "--runs", str(folder / "runs")]), error)


def _compare(options: str, error: str) -> Bad:
    def attempt(folder: Path) -> None:
        save_saes(folder)
        saes = [str(folder / f"{name}.safetensors") for name in "ab"]
        given = ["" if option == "''" else option.format(folder) for option in options.split(" ")]
        _run(["compare", "--figure", str(folder / "new.png"), *saes, *given])

    return Bad("command line", f"compare {options}".replace("{}", "…")[:80], attempt, error)


def _export(options: str, error: str) -> Bad:
    def attempt(folder: Path) -> None:
        save_saes(folder)
        given = ["" if option == "''" else option.format(folder) for option in options.split(" ")]
        _run(["export", *given, "--preset", "smoke", "--runs", str(folder / "runs")])

    return Bad("command line", f"export {options}".replace("{}", "…")[:80], attempt, error)


def _scheduler_file(content: str) -> Bad:
    def attempt(folder: Path) -> None:
        (folder / "s.json").write_text(content)
        _run([*_set(f"scheduler={folder / 's.json'}"), "--runs", str(folder / "runs")])

    return Bad(
        "command line", f"scheduler file: {content[:20]}", attempt, "scheduler = .*s.json': nobody answers there"
    )


def _set(*assignments: str) -> list[str]:
    return ["report", "--preset", "smoke", *(part for text in assignments for part in ("--set", text))]


COMMANDS = [
    _command(f"report --set {text}", _set(text), error)
    for text, error in (
        ("layer=7", "layer = 7"), ("delta=-1", "delta = -1"), ("detla=1", "unknown parameter 'detla'"),
        ("k=65", "k = 65"), ("delta", "expected NAME=VALUE"), ("n_anchors=20000", "n_anchors = 20000"),
        ("text=missing.txt", "text = '.*/missing.txt'"), ("model=no/such-folder", "model = 'no/such-folder'"),
        ("context=1", "context = 1"), ("n_anchors=13500", "disjoint parts"), ("tokens=1", "tokens = 1"),
        ("preset=medium", "--set 'preset=medium': give the preset by --preset"),
        ("scheduler=local:0", "scheduler = 'local:0'"), ("dtype=int8", "dtype = 'int8'"),
        ("other_model=random-gpt2", "other_model = 'random-gpt2': .*the study's own model"),
    )
] + [
    _command("report --set steps=3 --set steps=4", _set("steps=3", "steps=4"), "--set steps: given twice, as 3 and 4"),
    _command("sweep --deltas 1,-1", ["sweep", "--preset", "smoke", "--deltas", "1,-1"],
             "deltas = .*each 0 or larger"),
    _command("sweep --deltas wide", ["sweep", "--preset", "smoke", "--deltas", "wide"], "deltas = 'wide'"),
    _command("report --preset huge", ["report", "--preset", "huge"], "invalid choice: 'huge'"),
    _command("reprot", ["reprot"], "invalid choice: 'reprot'"),
    _command("explore --sae ''", ["explore", "--preset", "smoke", "--sae", ""], "sae = '': an empty value"),
    _command("explore --arms raw-ra-own --set frame=centred",
             ["explore", "--preset", "smoke", "--arms", "raw-ra-own", "--set", "frame=centred"],
             "frame = 'centred': the arm raw-ra-own has frame = 'raw'"),
    _command("explore --sae, a long name", ["explore", "--preset", "smoke", "--sae", "x" * 300], "sae = 'xxx.*long"),
    *(_scheduler_file(content) for content in ("[" * 100_000, "[1]", "{", '{"address": 3}')),
    Bad("command line", "report --runs, no UTF-8", lambda folder: _run(
        ["report", "--preset", "smoke", "--runs", str(folder / os.fsdecode(b"a\xff"))]), "runs = .*is no UTF-8 text"),
    Bad("command line", "timing ''", lambda _: _run(["timing", ""]), "folder = '': an empty value"),
    Bad("command line", "timing, a long name", lambda _: _run(["timing", "x" * 300]), "folder = 'xxx.*File name too"),
] + [
    _compare(options, error)
    for options, error in (
        ("--k -3", "k = -3: must be at least 1"), ("--k 3", "k = 3: .* none of these is one: leave it out"),
        ("''", "saes = '': an empty value"), ("~/none.safetensors", "none.safetensors does not exist"),
        ("--figure ''", "figure = '': an empty value"), ("--json ''", "json = '': an empty value"),
        ("--activations ''", "activations = '': an empty value"), ("--figure {}/photo.png", "figure = .* no figure of"),
        ("--json {}/notes.txt", "json = .*notes.txt': it is there and no file of compare"),
        ("--json {}/a.safetensors", "json = .*it is compared and would be replaced"),
        ("--json {}/new.png", "json = .*the figure goes there"),
        (f"--json {{}}/{'x' * 240}", "json = .*name is too long"),
        ("--figure {}/none/x.png", "figure = .*in a folder that there is"),
        ("--activations {}/none.safetensors", "activations = .*: 0 rows, of which no two differ"),
        ("--activations {}/one.safetensors", "activations = .*: 1 rows, of which no two differ"),
        ("--activations {}/equal.safetensors", "activations = .*: 5 rows, of which no two differ"),
        ("--activations {}/whole.safetensors", "activations = .*holds torch.int64"),
        ("--activations {}/nan.safetensors", "activations = .*: row 0 holds NaN"),
    )
] + [
    _export(options, error)
    for options, error in (
        ("'' --to saelens", "folder = '': an empty value"), ("{}/a.safetensors --to saelens", "folder = .* is a file"),
        ("{}/a.safetensors/x --to saelens", "folder = .*nothing can be written there .Not a directory"),
        ("/proc/none/x --to saelens", "folder = '/proc/none/x': nothing can be written there"),
        (f"{{}}/{'x' * 300} --to saelens", "folder = .*cannot be looked up"),
        ("{} --to saelens", "folder = .*not empty"),
        ("{}/x --to pretrained --licence ''", "licence = '': an empty value"),
        ("{}/x --to pretrained --licence mit\nevil:", "licence = .*must be an SPDX identifier"),
        ("{}/x --to pretrained --arm raw-ra-published-own --set unit_norm=true",
         "unit_norm = True: the arm raw-ra-published-own has unit_norm = False"),
        ("{}/x --to neuronpedia --licence mit", "licence = 'mit': neuronpedia has no place for it"),
        ("{}/x --to sae-dashboard --set-name ''", "set_name = '': an empty value"),
        ("{}/x --to saelens --set-name x", "set_name = 'x': saelens has no place for it"),
        ("{}/x --to pretrained --model-id x", "model_id = 'x': pretrained has no place for it"),
    )
]  # fmt: skip

# --- saved SAEs ---


def save_saes(folder: Path) -> None:
    """Two SAEs, activations of several kinds, and files of someone else's."""
    folder.mkdir(exist_ok=True)
    for name in "ab":
        save_sae(an_sae(), folder / f"{name}.safetensors")
    rows = {"none": torch.zeros(0, 6), "one": torch.ones(1, 6), "equal": torch.ones(5, 6)}
    rows |= {"nan": torch.full((5, 6), torch.nan), "whole": torch.arange(30).reshape(5, 6)}
    for name, x in rows.items():
        save_file({"x": x}, folder / f"{name}.safetensors")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n a photo")
    (folder / "notes.txt").write_text("notes")


def an_sae() -> SAE:
    """A small archetypal one whose origin is known."""
    generator = torch.Generator().manual_seed(0)
    anchors, weights = torch.randn(8, 6, generator=generator), torch.rand(10, 8, generator=generator)
    dictionary = ArchetypalDictionary(anchors, weights / weights.sum(dim=1, keepdim=True), delta=0.5)
    sae = SAE(dictionary, 3, torch.randn(6, generator=generator), 0.5)
    sae.about = About(model="m", layer=3, context=32, excluded_positions=(0,), seed=1)
    return sae


def _file_of_ours(error: str, told: str | None = None, whole: str | None = None, **changes: Any) -> Bad:
    """With other metadata, all of them or some values, or with one tensor of whole numbers."""

    def attempt(folder: Path) -> None:
        sae, path = an_sae(), folder / "sae.safetensors"
        tensors = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
        if whole:
            tensors[whole] = tensors[whole].long()
        save_file(tensors, path, {"sae": told or json.dumps(json.loads(described(sae)["sae"]) | changes)})
        open_sae(path)

    return Bad("saved SAE", (told or f"int64 {whole}" if told or whole else f"{changes}")[:60], attempt, error)


def _negative_threshold(folder: Path) -> None:
    sae = SAE(FreeDictionary.random(8, 6), 2, activation="batchtopk")
    sae.threshold.fill_(-1)
    save_sae(sae, folder / "sae.safetensors")
    open_sae(folder / "sae.safetensors")


def _over_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("notes")
    save_sae(an_sae(), folder / "notes.txt")


def _other_support(_: Path) -> None:
    sae = SAE(SparseArchetypalDictionary.from_anchors(torch.eye(6), support=2), 1)
    Trainer(sae, TrainingConfig(w_step="sparse", support=3))


def _folder_of_ours(what: str, config: str, error: str) -> Bad:
    def attempt(folder: Path) -> None:
        an_sae().save_pretrained(folder / "sae")
        (folder / "sae" / "config.json").write_text(config)
        open_sae(folder / "sae")

    return Bad("saved SAE", f"config.json: {what}", attempt, error)


def _saelens(
    error: str,
    *,
    ours: bool = False,
    weights: str | None = None,
    whole: bool = False,
    metadata: Any = None,
    **changes: Any,
) -> Bad:
    """With other settings or metadata, or with one changed weight; with `ours`, our own file is still beside them."""

    def attempt(folder: Path) -> None:
        to_saelens(an_sae(), folder / "sae")
        config = json.loads((folder / "sae" / "cfg.json").read_text())
        config["metadata"] = (
            config["metadata"] | metadata if isinstance(metadata, dict) else metadata or config["metadata"]
        )
        (folder / "sae" / "cfg.json").write_text(json.dumps(config | changes))
        if weights:
            path = folder / "sae" / "sae_weights.safetensors"
            found = load_file(path)
            found[weights] = (10 * found[weights]).long() if whole else found[weights].flip(0).contiguous()
            save_file(found, path)
        if not ours:
            (folder / "sae" / "archsae.safetensors").unlink()
        open_sae(folder / "sae")

    said = {"metadata": metadata} if metadata is not None else changes or {weights: "int64" if whole else "changed"}
    return Bad("saved SAE", f"SAELens{', with our file' if ours else ''}: {said}"[:100], attempt, error)


def _deep_settings(folder: Path) -> None:
    to_saelens(an_sae(), folder / "sae")
    (folder / "sae" / "cfg.json").write_text("[" * 100_000)
    open_sae(folder / "sae")


SAES = [
    *(
        _file_of_ours(error, **{name: value})
        for name, value, error in (
            ("unit_norm", "x", "unit_norm = 'x': must be true or false"), ("unit_norm", None, "unit_norm = None"),
            ("about", None, "about is None: must be an object"), ("about", [], "about is"), ("k", "3", "k = '3'"),
            ("about", {"layer": "x"}, "about.layer = 'x': must be a whole number from 0 or null"),
            ("about", {"layer": -2}, "about.layer = -2"), ("about", {"model": [1]}, "about.model = .*a text or null"),
            ("about", {"excluded_positions": 3}, "about.excluded_positions = 3: must be a list"),
            ("about", {"metrics": {"r2": "x"}}, "about.metrics = .*: must be an object, each value a number"),
            ("learn_scale", "no", "learn_scale = 'no'"), ("decoder_bias", "x", "decoder_bias = 'x'"),
            ("dictionary", "x", "dictionary = 'x': must be one of free, archetypal"), ("delta", "1", "delta = '1'"),
        )
    ),
    *(_file_of_ours(f"{name} holds torch.int64", whole=name) for name in ("W_enc", "mean", "dictionary.relax")),
    _file_of_ours("metadata is .*: must be an object", told="[1]"),
    _file_of_ours("is not a saved SAE .it is nested too deeply", told="[" * 100_000),
    Bad("saved SAE", "BatchTopK, threshold -1", _negative_threshold, "threshold = -1: must be at least 0"),
    Bad("saved SAE", "over other people's file", _over_notes, "notes.txt is of something else than an SAE"),
    Bad("training", "sparse W, another support", _other_support, "support = 3: an atom of the dictionary mixes 2 of 6"),
    _folder_of_ours("no object", "[1]", "config.json is no JSON object: delete it"),
    _folder_of_ours("no JSON", "{", "config.json is not readable JSON .*: delete it"),
    _folder_of_ours("nested", "[" * 100_000, "config.json is not readable JSON .*nested too deeply"),
    _folder_of_ours("another k", '{"k": 5}', "config.json does not belong to model.safetensors.* says k = 3, not 5"),
    *(
        _saelens(error, **changes)
        for error, changes in (
            ("cfg.json: metadata = .*: must be an object or null", {"metadata": [1]}),
            ("cfg.json: metadata = 'x'", {"metadata": "x"}), ("cfg.json: d_in = '6'", {"d_in": "6"}),
            ("cfg.json: activation_fn_kwargs = .3.", {"activation_fn_kwargs": [3]}), ("cfg.json: k = '3'", {"k": "3"}),
            ("sae_weights.safetensors: W_enc holds torch.int64", {"weights": "W_enc", "whole": True}),
        )
    ),
    *(
        _saelens(f"cfg.json: {name} = .*: must be", metadata={name: value})
        for name, value in (
            ("seqpos_slice", 3), ("seqpos_slice", "ab"), ("seqpos_slice", ["a"]), ("seqpos_slice", [True]),
            ("seqpos_slice", [1, 2, 3, 4]), ("seqpos_slice", [None, None, 0]), ("hook_name", 3), ("hook_name", ["a"]),
            ("model_name", ["m"]), ("context_size", "x"), ("prepend_bos", "y"), ("dataset_path", 3),
        )
    ),
    _saelens("seqpos_slice = .*depends on context_size", metadata={"seqpos_slice": [1, -1], "context_size": None}),
    _saelens("no text has positions beyond", metadata={"context_size": 10**12}),
    *(
        _saelens(f"archsae.safetensors does not belong to {error}", ours=True, **changes)
        for error, changes in (
            ("cfg.json: it says k = 3, not 5; delete it", {"k": 5}),
            ("cfg.json: it says apply_b_dec_to_input = True, not False", {"apply_b_dec_to_input": False}),
            ("cfg.json: it says metadata.hook_name", {"metadata": {"hook_name": "blocks.5.hook_resid_post"}}),
            ("cfg.json: it says metadata.archsae.delta", {"metadata": {"archsae": {"delta": 2.0}}}),
            ("sae_weights.safetensors: W_enc was changed", {"weights": "W_enc"}),
            ("sae_weights.safetensors: W_dec differs", {"weights": "W_dec"}),
        )
    ),
    _saelens("cfg.json: prepend_bos = 'y'", ours=True, metadata={"prepend_bos": "y"}),
    Bad("saved SAE", "SAELens: cfg.json nested 100,000 deep", _deep_settings, "cfg.json is not readable JSON .*deeply"),
]  # fmt: skip

# --- text files ---


def _study(folder: Path, **parameters: Any) -> Study:
    return Study(configure({"preset": "smoke"} | parameters), folder / "runs")


def _file(what: str, name: str, content: str | bytes | None, changes: Mapping[str, Any], error: str) -> Bad:
    def attempt(folder: Path) -> None:
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        _study(folder, text=str(folder / name), **changes).check()

    return Bad("text", what, attempt, error)


def _parquet(folder: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"body": ["one"], "topic": ["x"]}), folder / "a.parquet")
    _study(folder, text=str(folder / "a.parquet")).check()


def _parts(what: str, error: str, *parts: Mapping[str, list[Any]] | str, **changes: Any) -> Bad:
    """A folder of parts; a text is the content of a README."""

    def attempt(folder: Path) -> None:
        (folder / "a.parquet").mkdir()
        for number, part in enumerate(parts):
            if isinstance(part, str):
                (folder / "a.parquet" / "README.md").write_text(part)
            else:
                pyarrow.parquet.write_table(pyarrow.table(part), folder / "a.parquet" / f"{number}.parquet")
        _study(folder, text=str(folder / "a.parquet"), **changes).check()

    return Bad("text", f"parquet folder: {what}", attempt, error)


def _pipe(path: Path) -> None:
    os.mkfifo(path)
    _study(path.parent, text=str(path)).check()


def _text_folder(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_text('{"text": "one"}\n')
    _study(folder.parent, text=str(folder)).check()


def _changed_text(folder: Path) -> None:
    text = folder / "a.txt"
    text.write_text("\n\n".join(f"document {i} of a text" for i in range(40)))
    study = _study(folder, text=str(text))
    assert study.source
    text.write_text("\n\n".join(f"another document {i}" for i in range(40)))
    study.check()


TEXTS = [
    _file("no such file", "a.txt", None, {}, "text = .*no such file"),
    _file("unknown kind", "a.docx", "one", {}, r"text = .*unknown kind of file.*\.jsonl"),
    _file("empty", "a.txt", "", {}, "text = .*is empty"),
    _file("blank lines only", "a.txt", "\n \n\n", {}, "text = .*0 documents are too few"),
    _file("one line", "a.txt", "one line", {}, "text = .*1 documents are too few"),
    _file("one line of a megabyte", "a.txt", "word " * 200_000, {}, "text = .*1 documents are too few"),
    _file("two documents", "a.txt", "one\n\ntwo", {}, "text = .*2 documents are too few"),
    _file("documents of one token", "a.txt", "a\n\nb\n\nc", {}, "text = .*no train document has 2 tokens"),
    _file("latin-1", "a.txt", "one\n\ntwo\n\n£".encode("latin-1"), {}, "text = .*not UTF-8 at byte 10"),
    _file("UTF-16", "a.txt", "one\n\ntwo\n\nthree".encode("utf-16"), {}, "text = .*NUL bytes"),
    _file("binary", "a.txt", bytes(range(256)), {}, "text = .*NUL bytes"),
    _file("binary without NUL", "a.txt", bytes(range(1, 256)), {}, "text = .*not UTF-8 at byte 127"),
    _file("label of a .txt", "a.txt", "1\n\n2\n\n3", {"label_field": "topic"}, "label_field = 'topic'.*no columns"),
    _file("broken JSON", "a.jsonl", '{"text": "one"}\n{"text": ', {}, "text = .*line 2 is not JSON"),
    _file("JSON, no object", "a.jsonl", '["one"]', {}, "text = .*line 1 is no JSON object"),
    _file("no such column", "a.jsonl", '{"body": "one"}', {}, "text_field = 'text'.*its columns are body"),
    _file("numbers for text", "a.jsonl", '{"text": 3}', {}, "text_field = 'text'.*holds int"),
    _file("half a surrogate pair", "a.jsonl", '{"text": "\\ud800"}', {}, "text = .*surrogate"),
    _file("a name twice", "a.jsonl", '{"text": "one", "text": "two"}', {}, "text = .*line 1 names 'text' twice"),
    _file("label of the text", "a.jsonl", '{"text": "1"}', {"label_field": "text"}, "label_field = 'text': is the col"),
    _file("no such label", "a.jsonl", '{"text": "one"}', {"label_field": "t"}, "label_field = 't'.*columns are text"),
    _file("missing labels", "a.jsonl", '{"text": "1", "t": "x"}\n{"text": "2"}', {"label_field": "t"}, "no label"),
    _file(
        "no label: empty", "a.csv", "text,t\none,\n", {"label_field": "t"}, "label_field = 't'.*no label, such as row 1"
    ),
    _file(
        "no label: NaN", "a.jsonl", '{"text": "1", "t": NaN}', {"label_field": "t"}, "label_field = 't'.*no label.*nan"
    ),
    _file(
        "no label: spaces", "a.jsonl", '{"text": "1", "t": " "}', {"label_field": "t"}, "label_field = 't'.*no label"
    ),
    _file(
        "label of a list",
        "a.jsonl",
        '{"text": "1", "t": ["sea", "all"]}',
        {"label_field": "t"},
        "label_field = 't': row 1 holds list, not one label",
    ),
    _file(
        "labels that would be one topic",
        "a.jsonl",
        '{"text": "1", "t": 1}\n{"text": "2", "t": "1"}',
        {"label_field": "t"},
        "label_field = 't': rows 1 and 2 hold 1 and '1', which mean one topic",
    ),
    _file("label of an object", "a.jsonl", '{"text": "1", "t": {"a": 1}}', {"label_field": "t"}, "row 1 holds dict"),
    _file("text_field of a .txt", "a.txt", "1\n\n2\n\n3", {"text_field": "body"}, "text_field = 'body'.*no columns"),
    _file(
        "text_layout of a .jsonl",
        "a.jsonl",
        '{"text": "1"}',
        {"text_layout": "lines"},
        r"text_layout.*\.txt files only",
    ),
    _file("text_layout unknown", "a.txt", "1", {"text_layout": "words"}, "text_layout = 'words': must be one of auto"),
    _file(
        "revision of a file", "a.txt", "1", {"text_revision": "v1"}, "text_revision = 'v1'.*only datasets of the hub"
    ),
    _file("broken CSV", "a.csv", "text,t\none\n", {}, "text = .*not a readable CSV file.*Row #2"),
    _file(
        "CSV, a quote that is never closed",
        "a.csv",
        'text\none\ntwo\n"three\nfour\nfive\n',
        {},
        "text = .*row 3 begins",
    ),
    _file("CSV, two of them", "a.csv", 'text\none\n"two\nthree\n"four\nfive\n', {}, "text = .*row 2 begins"),
    _file("copies of one document", "a.txt", "one two\n\nOne two!\n\none  two", {}, "3 documents are copies of 1"),
    Bad("text", "folder named .jsonl", lambda folder: _text_folder(folder / "a.jsonl"), "text = .*is a folder"),
    Bad(
        "text", "folder of .csv files", lambda folder: _text_folder(folder / "a", "a.csv", "b.csv"), "holds .csv files"
    ),
    Bad(
        "text",
        "folder read in part",
        lambda folder: _text_folder(folder / "a", "train.jsonl", "more.jsonl"),
        "such as 'more.jsonl', would not be read",
    ),
    Bad(
        "text",
        "compressed files among others",
        lambda folder: _text_folder(folder / "a", "a.jsonl", "b.jsonl.gz"),
        "holds .jsonl and .jsonl.gz files",
    ),
    Bad("text", "changed while it is read", _changed_text, "text = .*has changed since this began"),
    Bad("text", "empty folder named .parquet", lambda folder: _text_folder(folder / "a.parquet"), "no parquet file"),
    *(
        Bad("text", f"text = {text!r}", lambda path, text=text: _study(path, text=text).check(), f"text = .*{error}")
        for text, error in (
            ("+", "a name is missing: give a name"),
            ("bbc-news+", "a name is missing"),
            ("+bbc-news", "a name is missing"),
            ("bbc-news+bbc-news", "names a text twice"),
        )
    ),
    Bad("text", "empty name", lambda folder: _study(folder, text=" "), "text = ' ': name an embedded text"),
    Bad(
        "text",
        "joined with what is not embedded",
        lambda folder: _study(folder, text="bbc-news+x").check(),
        "'x' is not",
    ),
    Bad(
        "text",
        "column of an embedded text",
        lambda folder: _study(folder, label_field="t").check(),
        "label_field = 't'",
    ),
    _file("no parquet", "a.parquet", "no parquet", {}, "text = .*not a readable parquet file"),
    Bad("text", "parquet without the column", _parquet, "text_field = 'text'.*its columns are body, topic"),
    _parts("no text in a part", "text = .*'text': 1.parquet has no such column", {"text": ["a"]}, {"body": ["b"]}),
    _parts(
        "no text in the first part",
        "text = .*'text': 0.parquet has no such column, and 1.parquet has",
        {"body": ["a"]},
        {"text": ["b"]},
    ),
    _parts(
        "numbers in a part", "'text': it is string in 0.parquet and int64 in 1.parquet", {"text": ["a"]}, {"text": [1]}
    ),
    _parts(
        "no label in a part",
        "'t': 1.parquet has no such column",
        {"text": ["a"], "t": ["x"]},
        {"text": ["b"]},
        label_field="t",
    ),
    _parts(
        "a README", "text = .*README.md in the folder is no readable parquet file: move it", {"text": ["a"]}, "about it"
    ),
    Bad("text", "a pipe", lambda folder: _pipe(folder / "a.txt"), "text = .*is a pipe or a device: save what it gives"),
    Bad("text", "a pipe without an ending", lambda folder: _pipe(folder / "a"), "text = .*is a pipe or a device"),
    _file(
        "JSON nested 100,000 deep", "a.jsonl", '{"text": ' + "[" * 100_000, {}, "line 1 is not JSON .it is nested too"
    ),
    _file(
        "a long column name", "a.jsonl", json.dumps({"x" * 90_000: 1}), {}, "text_field = 'text'.*its columns are xxx"
    ),
    _file(
        "a long name twice", "a.jsonl", f'{{"{"x" * 9000}": 1, "{"x" * 9000}": 2}}', {}, "line 1 names 'xxx.*' twice"
    ),
]

# --- model folders ---


def save_model(folder: Path) -> Path:
    """`random-gpt2` and its tokenizer in the hub's layout."""
    with quiet_transformers():
        random_model.gpt2(32).save_pretrained(folder)
        random_model.tokenizer().save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite model.safetensors."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_weight(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("transformer.h.0.attn.c_proj.weight"))


def reshape_weight(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({"transformer.h.1.mlp.c_fc.bias": torch.zeros(3)}))


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _sharded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with quiet_transformers():
        random_model.gpt2(32).save_pretrained(folder, max_shard_size="60KB")


def drop_shard(folder: Path) -> None:
    _sharded(folder)
    next(folder.glob("model-00002-of-*")).unlink()


def wrong_shard(folder: Path) -> None:
    _sharded(folder)
    first, second = sorted(folder.glob("model-0000[12]-of-*"))
    second.write_bytes(first.read_bytes())


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(random_model.gpt2(32).state_dict(), folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "code.py").write_text("raise SystemExit('own code was run')")


def encoder_decoder(folder: Path) -> None:
    transformers.T5Config(num_layers=2).save_pretrained(folder)


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"')


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def foreign_tokenizer(folder: Path) -> None:
    """Its ids go beyond the model's embeddings."""
    vocabulary = {"[UNK]": 0, "sea": 7000}
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=found).save_pretrained(folder)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_blocks(folder: Path) -> None:
    change_json(folder / "config.json", n_layer=0)


def nan_weights(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["transformer.h.0.mlp.c_proj.bias"].fill_(torch.nan))


def constant_model(folder: Path) -> None:
    change_weights(folder, lambda weights: [weight.fill_(0) for weight in weights.values()])


def _embeddings_only(folder: Path, constant: str) -> None:
    """Blocks that add nothing, and one kind of embedding that tells nothing apart."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            if name.startswith("transformer.h."):
                weight.fill_(0)
        weights[constant].fill_(0.1)

    change_weights(folder, change)


def positions_only(folder: Path) -> None:
    """Every token has the same embedding: as many activations as positions."""
    _embeddings_only(folder, "transformer.wte.weight")
    # not the same number in each dimension: the last norm would make every logit 0, which shows before the activations
    change_weights(folder, lambda weights: weights["transformer.wte.weight"].copy_(torch.linspace(0.05, 0.2, 32)))


def tokens_only(folder: Path) -> None:
    """Every position has the same embedding: as many activations as tokens."""
    _embeddings_only(folder, "transformer.wpe.weight")


def _model(damage: Callable[[Path], None], error: str, **changes: Any) -> Bad:
    def attempt(folder: Path) -> None:
        damage(save_model(folder / "model"))
        with contextlib.redirect_stderr(io.StringIO()):
            _study(folder, model=str(folder / "model"), **changes).check()

    return Bad("model folder", damage.__name__.replace("_", " "), attempt, error)


MODELS = [
    _model(drop_weight, r"model = .*1 weights are missing.*h\.0\.attn\.c_proj"),
    _model(reshape_weight, r"model = .*wrong shape.*h\.1\.mlp\.c_fc\.bias"),
    _model(truncate, "model = .*model cannot be loaded"),
    _model(drop_shard, "model = .*model-00002-of-"),
    _model(wrong_shard, "model = .*(missing|cannot be loaded)"),
    _model(pickled_weights, "model = .*no file named model.safetensors"),
    _model(own_code, "model = .*custom code"),
    _model(encoder_decoder, "model = .*encoder-decoder"),
    _model(broken_config, "model = .*configuration cannot be loaded"),
    _model(no_config, "model = .*configuration cannot be loaded"),
    _model(no_tokenizer, "model = .*tokenizer"),
    _model(no_blocks, "model: this gpt2 has no decoder blocks"),
    _model(nan_weights, "model: .*NaN or infinity in float32"),
    _model(constant_model, "model: .*zeros change no logit"),
    _model(lambda folder: None, "layer = 3: .* 0 … 2", layer=3)._replace(what="layer beyond the last"),
    _model(lambda folder: None, "context = 65: .* at most 64", context=65)._replace(what="context beyond positions"),
]

# --- what shows in the activations only ---


def _data(what: str, damage: Callable[[Path], None], error: str, text: str = "", **changes: Any) -> Bad:
    def attempt(folder: Path) -> None:
        damage(save_model(folder / "model"))
        if text:
            (folder / "a.txt").write_text(text)
            changes["text"] = str(folder / "a.txt")
        study = _study(folder, model=str(folder / "model"), **changes)
        study.check()
        study.anchor_folder()

    return Bad("activations", what, attempt, error, late=True)


FEW_WORDS = "\n\n".join(" ".join(random.Random(i).choices(["sea", "wood", "song"], k=60)) for i in range(60))
ACTIVATIONS = [
    _data("duplicate tokens", positions_only, "n_anchors = 64: only 31 distinct activations"),
    _data(
        "fewer distinct points than centroids",
        tokens_only,
        r"n_anchors = 40: only \d+ distinct",
        FEW_WORDS,
        n_anchors=40,
    ),
    _data("ids beyond the embeddings", foreign_tokenizer, "token 7000 exceeds its 384 embeddings", FEW_WORDS),
]

BAD = [*PARAMETERS, *_notebook_cases(), *COMMANDS, *SAES, *TEXTS, *MODELS, *ACTIVATIONS]


def error_of(bad: Bad, folder: Path) -> str:
    """The message that the input gets. Raises AssertionError where it is accepted."""
    try:
        bad.attempt(folder)
    except (ValueError, RuntimeError) as error:
        return str(error).strip()
    raise AssertionError(f"{bad.area}: {bad.what} was accepted")


def main() -> None:
    """Print the table: input and error."""
    sys.stdout.write("| input | error |\n|---|---|\n")
    for bad in BAD:
        with tempfile.TemporaryDirectory() as folder:
            message = error_of(bad, Path(folder)).splitlines()[-1].replace(folder, "…").replace("|", "\\|")
        sys.stdout.write(f"| {bad.area}: {bad.what} | {message} |\n")
    sys.stdout.write(f"\n{len(BAD)} bad inputs, {len(BAD)} clear errors\n")


if __name__ == "__main__":
    main()
