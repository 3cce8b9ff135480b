"""Bad inputs and the error that each gets: data for test_bad_inputs.py; run as a script, it prints them."""

import ast
import contextlib
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pyarrow
import pyarrow.parquet
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from archsae_core.data import random_model
from archsae_core.data.hub import quiet_transformers
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
    ("k", 2000), ("k", 2.5), ("n_features", 0), ("n_anchors", 0), ("steps", 0), ("batch_size", -1), ("lr", 0.0),
    ("lr", "fast"), ("w_lr", -1.0), ("w_step", "newton"), ("smoothing", 0.0), ("smoothing", 1.0), ("layer", -1),
    ("layer", 1.5), ("context", 1), ("dtype", "float16"), ("device", "tpu"), ("heldout_fraction", 0.0),
    ("heldout_fraction", 0.6), ("validation_fraction", 1), ("tokens", 0), ("anchor_tokens", -5), ("aux_k", 0),
    ("aux_coefficient", -1), ("dead_after", 0), ("checkpoint_every", 0), ("seed", -1), ("seed", 2**40),
    ("n_seeds", 0), ("n_seeds", 1), ("ablation_seeds", 1), ("text", ""), ("tokens", ""), ("text", ["a.txt", "b.txt"]),
    ("deltas", {"low": 0, "high": 1}), ("arms", {"topk-random-own"}), ("revision", 4e10), ("layer", "all"),
    ("arms", ["topk-random-own", "nothing"]), ("arms", []), ("arms", ["ra-own", "ra-own"]), ("deltas", []),
    ("deltas", [-1.0]), ("deltas", [1, 1]), ("deltas", "[1, "), ("ablation_steps", 0), ("ablation_seeds", 0),
    ("longer_factor", 0), ("full_size_steps", -1), ("other_settings", "perhaps"), ("heldout_tokens", 0),
    ("probe_tasks", -1), ("probe_prompts", 7),
    ("behaviour_tokens", 0), ("feature", 99999), ("feature", -1), ("outlier_factor", 0),
    ("outlier_factor", 0.99), ("context", 2), ("heldout_tokens", 1), ("kmeans_iterations", 0),
    ("unit_norm", "perhaps"), ("preset", "huge"), ("scheduler", "local:0"), ("scheduler", "local:many"),
    ("scheduler", "tcp://host"), ("scheduler", "http://host:1"), ("scheduler", "missing.json"), ("scheduler", "8786"),
]  # fmt: skip
PARAMETERS = [
    Bad("parameter", f"{name} = {value!r}", lambda _, name=name, value=value: configure({name: value}), name)
    for name, value in VALUES
] + [Bad("parameter", "detla = 0.5", lambda _: configure({"detla": 0.5}), "unknown parameter 'detla'.*delta")]


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


def _command(what: str, arguments: list[str], error: str) -> Bad:
    def attempt(folder: Path) -> None:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                status = command_line([*arguments, "--runs", str(folder / "runs")])
            except SystemExit as ended:
                status = int(ended.code or 0)
        if status:
            raise ValueError(errors.getvalue())

    return Bad("command line", what, attempt, error)


def _set(*assignments: str) -> list[str]:
    return ["report", "--preset", "smoke", *(part for text in assignments for part in ("--set", text))]


COMMANDS = [
    _command(f"report --set {text}", _set(text), error)
    for text, error in (
        ("layer=7", "layer = 7"), ("delta=-1", "delta = -1"), ("detla=1", "unknown parameter 'detla'"),
        ("k=65", "k = 65"), ("delta", "expected NAME=VALUE"), ("n_anchors=20000", "n_anchors = 20000"),
        ("text=missing.txt", "text = '.*/missing.txt'"), ("model=no/such-folder", "model = 'no/such-folder'"),
        ("context=1", "context = 1"), ("n_anchors=13000", "disjoint parts"), ("tokens=1", "tokens = 1"),
        ("scheduler=local:0", "scheduler = 'local:0'"), ("dtype=int8", "dtype = 'int8'"),
    )
] + [
    _command("report --set steps=3 --set steps=4", _set("steps=3", "steps=4"), "--set steps: given twice, as 3 and 4"),
    _command("sweep --deltas 1,-1", ["sweep", "--preset", "smoke", "--deltas", "1,-1"],
             "deltas = .*each 0 or larger"),
    _command("sweep --deltas wide", ["sweep", "--preset", "smoke", "--deltas", "wide"], "deltas = 'wide'"),
    _command("report --preset huge", ["report", "--preset", "huge"], "invalid choice: 'huge'"),
    _command("reprot", ["reprot"], "invalid choice: 'reprot'"),
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


def _text_folder(folder: Path) -> None:
    folder.mkdir()
    _study(folder.parent, text=str(folder)).check()


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
    _file("copies of one document", "a.txt", "one two\n\nOne two!\n\none  two", {}, "3 documents are copies of 1"),
    Bad("text", "folder named .jsonl", lambda folder: _text_folder(folder / "a.jsonl"), "text = .*is a folder"),
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

BAD = [*PARAMETERS, *_notebook_cases(), *COMMANDS, *TEXTS, *MODELS, *ACTIVATIONS]


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
