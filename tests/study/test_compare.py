"""`compare`: tables and a figure of anyone's saved SAEs."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from archsae_core.config import FRAMES, ConfigError
from archsae_core.data.activations import fit_normalizer
from archsae_core.interop import to_saelens
from archsae_core.metrics import stability
from archsae_core.models.about import About
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE, load_sae, save_sae
from archsae_study.__main__ import main
from archsae_study.commands import compare


def sae_of(atoms, seed=0, **about):
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(FreeDictionary(atoms), 3, torch.randn(atoms.shape[1], generator=generator), 0.5)
    sae.about = About(seed=seed, **about)
    return sae


@pytest.fixture
def saved(tmp_path, seeded):
    """The same atoms shuffled, in three forms, and one SAE that has nothing to do with them."""
    atoms = torch.randn(40, 12)
    save_sae(sae_of(atoms, layer=1), tmp_path / "ours.safetensors")
    to_saelens(sae_of(atoms.flip(0), 1, layer=1), tmp_path / "theirs")
    sae_of(atoms[torch.randperm(40)], 2, layer=1).save_pretrained(tmp_path / "hub")
    save_sae(sae_of(torch.randn(30, 12), 3), tmp_path / "unrelated.safetensors")
    return tmp_path


def run(folder, *names, options=()):
    arguments = ["compare", *(str(folder / name) for name in names), "--figure", str(folder / "figure.png")]
    return main([*arguments, *map(str, options)])


def test_the_same_features_in_other_forms_score_one(saved, capsys):
    assert run(saved, "ours.safetensors", "theirs", "hub", options=["--json", saved / "found.json"]) == 0
    found = json.loads((saved / "found.json").read_text())
    assert [sae["name"] for sae in found["saes"]] == ["ours", "theirs", "hub"]
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [
        ("ours", "theirs"),
        ("ours", "hub"),
        ("theirs", "hub"),
    ]
    for pair in found["pairs"]:
        assert pair["raw"]["hungarian_centred"] == pytest.approx(1, abs=1e-5)
        assert pair["normalised"]["shared"] == pytest.approx(1, abs=1e-5)
    table = capsys.readouterr().out
    assert "| hungarian_centred | 1.000 | " in table
    assert "| hungarian_centred, normalised | ours | theirs | hub |" in table
    assert (saved / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_names_on_the_hub_are_compared_with_files(saved, hub, capsys):
    load_sae(saved / "ours.safetensors").push_to_hub("user/ours", token="hf_stub")
    to_saelens(load_sae(saved / "unrelated.safetensors"), hub.repository("user/saes") / "layer.1")
    saes = ["user/ours", "user/saes/layer.1", str(saved / "ours.safetensors")]
    options = ["--figure", str(saved / "figure.png"), "--json", str(saved / "found.json")]
    assert main(["compare", *saes, *options]) == 0
    found = json.loads((saved / "found.json").read_text())
    assert [sae["path"] for sae in found["saes"]] == saes
    equal = {(pair["a"], pair["b"]): pair["raw"]["hungarian"] > 0.999 for pair in found["pairs"]}
    assert list(equal.values()) == [False, True, False]


def test_a_name_on_the_hub_without_a_network_is_an_error_in_one_line(saved, hub, capsys):
    hub.close()
    assert main(["compare", str(saved / "ours.safetensors"), "user/sae"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: 'user/sae' is no file or folder here, and the hub cannot be reached")
    assert said.count("\n") == 1


@pytest.mark.parametrize("kind", compare.IMAGES)
def test_what_an_earlier_comparison_wrote_is_replaced_and_a_home_is_a_place(saved, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(saved))
    arguments = ["compare", str(saved / "ours.safetensors"), "~/unrelated.safetensors"]
    for _ in range(2):
        assert main([*arguments, "--figure", f"~/f.{kind}", "--json", "~/f.json"]) == 0
    assert json.loads((saved / "f.json").read_text())["saes"][1]["path"] == "~/unrelated.safetensors"
    assert compare.MADE_BY.encode() in (saved / f"f.{kind}").read_bytes()


def test_a_foreign_file_is_not_replaced(saved):
    (saved / "figure.png").write_bytes(b"\x89PNG a photo")
    assert run(saved, "ours.safetensors", "theirs") == 2
    assert (saved / "figure.png").read_bytes() == b"\x89PNG a photo"


def test_unrelated_features_score_chance(saved, capsys):
    entries = compare.read([saved / "ours.safetensors", saved / "unrelated.safetensors"])
    found = compare.compare(entries)
    assert abs(found.pairs[0].found["normalised"]["hungarian_centred"]) < 0.1
    assert "| unrelated | 30 | 12 | topk | 3 | free | centred | – | – | 3 |" in compare.report(found)


def test_an_sae_that_takes_nothing_off_its_input_is_of_the_raw_frame():
    sae = SAE(FreeDictionary(torch.eye(4)), 2, activation="batchtopk")
    entry = compare.Entry("a", "a", sae, 2)
    assert [compare._about(entry)[name] for name in ("activation", "frame")] == ["batchtopk", "raw"]
    frames = [SAE(FreeDictionary(torch.eye(4)), 2, *fit_normalizer(torch.randn(9, 4) + 1, frame)) for frame in FRAMES]
    assert [compare._about(compare.Entry("a", "a", one, 2))["frame"] for one in frames] == list(FRAMES)
    sae.about = About(source="SAELens, blocks.1.hook_resid_post")
    assert compare._about(entry)["activation"] == "jumprelu"
    with torch.no_grad():
        sae.b_dec.fill_(0.1)
    assert compare._about(entry)["frame"] is None  # a bias that other tools learned may be the mean or not
    sae.about = About()
    with torch.no_grad():
        sae.b_dec.fill_(0.1)
    assert compare._about(entry)["frame"] == "centred"


def test_scores_are_those_of_the_study(saved):
    entries = compare.read([saved / "ours.safetensors", saved / "unrelated.safetensors"])
    sides = [stability.side(load_sae(saved / f"{name}.safetensors")) for name in ("ours", "unrelated")]
    assert compare.compare(entries).pairs[0].found == stability.compare(*sides)


def test_activations_add_codes_and_which_features_fire(saved, capsys):
    entries = compare.read([saved / "ours.safetensors", saved / "theirs"], codes=True)
    x = torch.randn(500, 12)
    save_file({"x": x}, saved / "x.safetensors")
    read = compare.read_activations(saved / "x.safetensors", 12, limit=300)
    assert torch.equal(read, x[:300])
    found = compare.compare(entries, read)
    assert found.n_tokens == 300
    assert (
        found.pairs[0].found["raw"]["firing_correlation"] > found.pairs[0].found["chance"]["firing_correlation"] + 0.2
    )
    alive = [int((entry.sae.encode(read).dense(40) > 0).any(dim=0).sum()) for entry in entries]
    assert [found.pairs[0].found["alive_a"], found.pairs[0].found["alive_b"]] == alive
    assert {"firing_correlation", "hungarian_alive"} <= set(found.scores)
    assert not {"firing_correlation", "hungarian_alive"} & set(compare.compare(entries).scores)
    assert run(saved, "ours.safetensors", "theirs", options=["--activations", saved / "x.safetensors"]) == 0
    assert "Codes of 500 activations." in capsys.readouterr().out


def test_no_paths_have_no_names():
    assert compare.short_names([]) == []


def test_names_tell_the_saes_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_sae(sae_of(torch.eye(4)), tmp_path / folder / "sae.safetensors")
    paths = [tmp_path / "one" / "sae.safetensors", tmp_path / "two" / "sae.safetensors"]
    assert [entry.name for entry in compare.read(paths)] == ["one/sae", "two/sae"]
    assert [entry.name for entry in compare.read([paths[0]] * 2)] == ["sae (1)", "sae (2)"]


def test_unlike_origins_are_warned_of(tmp_path, capsys):
    save_sae(sae_of(torch.eye(4), model="a", layer=3), tmp_path / "a.safetensors")
    save_sae(sae_of(torch.eye(4), model="a", layer=4), tmp_path / "b.safetensors")
    assert run(tmp_path, "a.safetensors", "b.safetensors") == 0
    assert "warning: the SAEs are of different layers (3, 4)" in capsys.readouterr().err


def test_what_an_sae_says_of_itself_cannot_act_on_a_terminal(tmp_path, capsys):
    for name, model in (("a", "\x1b[2J\u202em"), ("b", "\x07n")):
        save_sae(sae_of(torch.eye(4), model=model), tmp_path / f"{name}.safetensors")
    assert run(tmp_path, "a.safetensors", "b.safetensors") == 0
    said = capsys.readouterr()
    assert "| ⟨U+001B⟩&#91;2J⟨U+202E⟩m |" in said.out
    assert "different models (⟨U+0007⟩n, ⟨U+001B⟩[2J⟨U+202E⟩m)" in said.err
    assert not re.search("[\x07\x1b\u202e]", said.out + said.err)


def test_a_name_stays_in_its_cell_and_is_no_markup(tmp_path, capsys):
    for name in ("a|b", "<b>c", "[d](e)`f`"):
        save_sae(sae_of(torch.eye(4)), tmp_path / f"{name}.safetensors")
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert run(tmp_path, *names) == 0
    said = capsys.readouterr().out
    for name in ("a&#124;b", "&#60;b&#62;c", "&#91;d](e)&#96;f&#96;"):
        assert f"| {name} | 4 | 4 |" in said
    heads = {line.count("|") for line in said.splitlines() if "one-to-one" not in line and "&#" in line}
    assert heads == {11, 5}  # ten columns of the SAEs, four of the pairs


def other_width(folder):
    save_sae(sae_of(torch.eye(13)), folder / "wide.safetensors")
    return ["ours.safetensors", "wide.safetensors"]


def no_sae(folder):
    save_file({"anchors": torch.eye(2)}, folder / "anchors.safetensors")
    return ["ours.safetensors", "anchors.safetensors"]


def another_architecture(folder):
    config = json.loads((folder / "theirs" / "cfg.json").read_text())
    (folder / "theirs" / "cfg.json").write_text(json.dumps(config | {"architecture": "gated"}))
    return ["ours.safetensors", "theirs"]


FAULTS = {
    "other width": (other_width, (), "has d_model = 13, .*ours.safetensors has 12: only SAEs of activations of one"),
    "no SAE": (no_sae, (), "is no SAE: it holds anchors; give a .safetensors file of this package"),
    "missing": (lambda _: ["ours.safetensors", "none"], (), "none does not exist: give"),
    "architecture": (another_architecture, (), "architecture = 'gated' is not read here"),
    "one": (lambda _: ["ours.safetensors"], (), "needs at least two SAEs"),
    "image": (
        lambda _: ["ours.safetensors", "theirs"],
        ("--figure", "x.doc"),
        "figure = 'x.doc': name a file that ends in .png",
    ),
    "its own input": (
        lambda folder: ["ours.safetensors", "theirs"],
        ("--json", "ours.safetensors"),
        "json = '.*ours.safetensors': it is compared and would be replaced",
    ),
    "no name": (
        lambda _: ["ours.safetensors", "theirs"],
        ("--json", ""),
        "json = '': an empty value, perhaps of a variable",
    ),
    "no folder": (lambda _: ["ours.safetensors", "theirs"], ("--json", "none/x.json"), "json = 'none/x.json': name a"),
    "activations": (lambda _: ["ours.safetensors", "theirs"], ("--activations", "none"), "activations = none: no safe"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_fix(saved, fault, capsys, tmp_path):
    spoil, options, message = FAULTS[fault]
    options = [saved / option if option == "ours.safetensors" else option for option in options]
    assert run(saved, *spoil(saved), options=options) == 2
    assert not (saved / "figure.png").exists()
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert re.search(message, said)


def test_activations_that_do_not_fit_are_named(tmp_path):
    save_file({"x": torch.zeros(3, 5)}, tmp_path / "x.safetensors")
    save_file({"x": torch.zeros(3, 5), "y": torch.zeros(3, 5)}, tmp_path / "two.safetensors")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("x.safetensors", "they have width 5, the SAEs take d_model = 4"),
        ("two.safetensors", "2 matrices; the file has to hold one"),
        ("empty", "the folder has no index.safetensors"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare.read_activations(tmp_path / name, 4)
