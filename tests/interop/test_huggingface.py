"""`save_pretrained`, `from_pretrained`, `push_to_hub`: a folder, a hub, the card."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert.filters import markdown2html
from random_saes import activations_of, random_sae
from safetensors.torch import load_file, save_file

from archsae_core.config import ConfigError
from archsae_core.data.hub import HubError
from archsae_core.interop import open_sae, to_saelens
from archsae_core.models.about import About
from archsae_core.models.dictionary import ArchetypalDictionary, FreeDictionary
from archsae_core.models.sae import SAE, load_sae, save_sae
from archsae_core.storage import CorruptArtifact
from archsae_core.text import visible

FILES = {"model.safetensors", "config.json", "README.md"}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same(a: SAE, b: SAE) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    equal = all(torch.equal(mine[name], theirs[name]) for name in mine)
    return equal and mine.keys() == theirs.keys() and (a.k, a.about) == (b.k, b.about)


@pytest.fixture
def sae(seeded):
    dictionary = ArchetypalDictionary(torch.randn(8, 6), torch.rand(10, 8).softmax(dim=1), delta=0.5)
    dictionary.project_()
    sae = SAE(dictionary, 3, torch.randn(6), 0.5)
    sae.about = About(
        model="HuggingFaceTB/SmolLM2-135M", layer=22, context=256, excluded_positions=(0,), text="bbc-news",
        arm="ra", seed=3, steps=5000, metrics={"r2": 0.8123}, licence="mit",
    )  # fmt: skip
    return sae


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_a_folder_gives_the_same_sae(seed, tmp_path_factory):
    sae, folder = random_sae(seed), tmp_path_factory.mktemp("pretrained")
    sae.save_pretrained(folder)
    back, x = SAE.from_pretrained(folder), activations_of(sae)
    assert same(back, sae)
    assert type(back.dictionary) is type(sae.dictionary)
    assert torch.equal(back(x), sae(x))


def test_a_folder_holds_weights_settings_and_a_card_and_nothing_pickled(sae, tmp_path):
    sae.save_pretrained(tmp_path)
    assert names_in(tmp_path) == FILES
    settings_ = json.loads((tmp_path / "config.json").read_text())
    assert (settings_["k"], settings_["delta"], settings_["about"]["layer"]) == (3, 0.5, 22)
    assert load_file(tmp_path / "model.safetensors").keys() == sae.state_dict().keys()


def test_a_hub_gives_what_was_pushed_to_it(sae, hub, tmp_path):
    sae.push_to_hub("user/sae", token="hf_stub")
    assert names_in(hub.root / "user/sae") == FILES
    assert same(SAE.from_pretrained("user/sae"), sae)
    hub.close()
    assert same(SAE.from_pretrained("user/sae"), sae), "what was fetched once is read from the cache"


def test_a_push_without_a_token_is_refused_by_the_hub(sae, hub):
    with pytest.raises(HfHubHTTPError, match="401"):
        sae.push_to_hub("user/sae", token=False)
    assert not (hub.root / "user/sae").exists()


# --- the card ---


def metadata_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_tells_data_metrics_limits_licence_and_library(sae):
    card = str(sae.generate_model_card())
    found = metadata_of(card)
    assert found["library_name"] == "archsae-core"
    assert found["license"] == "mit"
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M"
    assert "archetypal" in found["tags"]
    for told in ("block 22", "bbc-news", "sequence: 256", "| r2 | 0.8123 |", "δ | 0.5", "| seed | 3 |", "position 0"):
        assert told in card
    for heading in ("## Use", "## Data", "## Metrics", "## Limits", "## Licence", "## Citation"):
        assert f"\n{heading}\n" in card


def test_a_card_of_an_unknown_sae_says_what_is_not_recorded():
    card = str(SAE(FreeDictionary(torch.eye(4)), 1, torch.zeros(4), 1.0).generate_model_card())
    assert "license" not in metadata_of(card)
    assert "Language model: not recorded" in card
    assert "None were recorded with these weights." in card
    assert "None is stated." in card
    assert "archetypal" not in card.lower()


def test_a_card_of_batchtopk_says_so():
    card = str(SAE(FreeDictionary(torch.eye(4)), 2, activation="batchtopk").generate_model_card())
    assert "A BatchTopK sparse autoencoder (SAE) for a language model: about 2 of 4 features" in card
    assert "arXiv 2412.06410" in card


def test_what_is_known_may_hold_any_text(sae, tmp_path):
    sae.about = About(model="a|b\n---\nlicense: evil", text="x`\n## Licence\n| y", metrics={"a|b": 1.0})
    sae.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "license" not in metadata_of(card)
    assert card.count("\n## Licence\n") == 1
    assert SAE.from_pretrained(tmp_path).about == sae.about


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.names, self.links, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![p](https://h/p.png)",
    "``` `x`", "| a | b |", "\u202eright to left", "\x1b[2Jcontrol\x00", "**bold** ~~gone~~ $x$", "&lt;script&gt;",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_on_the_card(sae, text):
    own = Tags(markdown2html(str(sae.generate_model_card())))
    sae.about = About(model=text, text=text, arm=text, source=text, note=text, licence=text, metrics={text: 1.0})
    card = str(sae.generate_model_card()).split("---\n", 2)[2]
    found = Tags(markdown2html(card))
    assert found.names <= own.names | {"hr"}
    assert all(link.startswith(("https:", "#")) for link in found.links), (
        "a bare address may become a link, nothing else"
    )
    assert found.text.count(visible(text)) == 8
    assert not re.search("[\u202e\x00\x1b]", card)


# --- what cannot be opened ---


def test_the_card_in_a_folder_is_of_the_sae_that_is_there(sae, tmp_path):
    card = tmp_path / "README.md"
    for name in ("first", "second"):
        sae.about = dataclasses.replace(sae.about, text=name)
        sae.save_pretrained(tmp_path)
        assert name in card.read_text()
    assert "first" not in card.read_text()
    card.write_text("# Mine")
    sae.save_pretrained(tmp_path)
    assert card.read_text() == "# Mine"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_files_of_something_else_stay(sae, name, tmp_path):
    if name == "config.json":
        (tmp_path / name).write_text('{"model_type": "gpt2"}')
    else:
        save_file({"wte.weight": torch.zeros(2)}, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ConfigError, match=f"{name} is of something else than an SAE and would be replaced"):
        sae.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_an_edited_card_stays(sae, tmp_path):
    sae.save_pretrained(tmp_path)
    sae.save_pretrained(tmp_path)  # one that nobody edited is replaced
    card = tmp_path / "README.md"
    card.write_text(card.read_text() + "\n## Mine\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"README\.md was edited since it was written"):
        sae.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_folder_is_of_one_kind(sae, tmp_path):
    sae.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"holds model\.safetensors of another kind of folder"):
        to_saelens(sae, tmp_path / "a")
    to_saelens(sae, tmp_path / "b")
    with pytest.raises(ConfigError, match=r"holds cfg\.json of SAELens, which is read first"):
        sae.save_pretrained(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
    with pytest.raises(ConfigError, match=r"cfg\.json and model\.safetensors, which may be of two SAEs"):
        open_sae(tmp_path / "b")


def test_what_cannot_be_said_in_json_is_refused_before_anything_is_written(sae, tmp_path):
    sae.about = dataclasses.replace(sae.about, metrics={"r2": float("nan")})
    with pytest.raises(ConfigError, match="about: holds NaN or infinity"):
        sae.save_pretrained(tmp_path / "folder")
    assert not list((tmp_path / "folder").glob("*"))


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"has no model\.safetensors: it is no folder of save_pretrained"):
        SAE.from_pretrained(tmp_path)


def test_other_weights_are_no_sae(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptArtifact, match="is not a saved SAE"):
        SAE.from_pretrained(tmp_path)


def test_a_missing_repository_is_named(hub):
    with pytest.raises(HubError, match="'user/none': the hub has no such public repository"):
        SAE.from_pretrained("user/none")


def test_a_hub_that_cannot_be_reached_is_named(hub):
    hub.close()
    with pytest.raises(HubError, match="'user/sae': the hub cannot be reached"):
        SAE.from_pretrained("user/sae")


def test_a_repository_of_something_else_is_named(hub):
    (hub.repository("user/model") / "config.json").write_text("{}")
    with pytest.raises(HubError, match=r"'user/model': the repository has no model\.safetensors"):
        SAE.from_pretrained("user/model")


def test_a_file_of_an_earlier_version_is_read(sae, tmp_path):
    save_sae(sae, tmp_path / "sae.safetensors")
    tensors = load_file(tmp_path / "sae.safetensors")
    config = {"k": 3, "dictionary": "archetypal", "delta": 0.5, "unit_norm": True, "learn_scale": False}
    save_file(tensors, tmp_path / "old.safetensors", {"sae": json.dumps(config)})
    found = load_sae(tmp_path / "old.safetensors")
    assert found.about == About()
    assert torch.equal(found.W_enc, sae.W_enc)
