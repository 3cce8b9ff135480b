"""The explorer's data, by hand and from the smoke study; the files of its page."""

import dataclasses
import hashlib
import html
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from toy import D_MODEL, activation_set, language_model, token_set, unit_sae

from archsae_core.metrics import features as inspection
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE
from archsae_core.text import visible
from archsae_study.__main__ import main
from archsae_study.engine.study import Study
from archsae_study.explorer import build, features_frame, of_study, page
from archsae_study.explorer.build import Explorer, Material, MaterialPart, Subject
from archsae_study.explorer.widget import FeatureWidget, answer
from archsae_study.protocol.arms import explored_arms
from archsae_study.report import Report
from archsae_study.settings.config import ConfigError, configure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


TOPK, RA = explored_arms("centred")


# --- by hand ---


def test_what_a_killed_explorer_left_is_told_by_what_it_holds(smoke, folder, tmp_path):
    copy, work = tmp_path / "copy", tmp_path / ".copy.partial"
    shutil.copytree(folder, work)
    index, shard = work / "data" / "index.js", work / "data" / "features" / RA / "0.js"
    index.write_text(index.read_text()[:12])  # cut off
    shard.write_text("mine")
    (work / "notes.txt").write_text("mine")
    assert set(page.page_files(work)) - set(page.unfinished_files(work)) == {shard}
    for name in ("notes.txt", "assets/notes.txt"):
        (work / name).write_text("mine")
    with pytest.raises(FileExistsError, match=r"0\.js is no file of an explorer, and one is to be written there: move"):
        page.write_page(smoke, copy)
    assert shard.read_text() == "mine"
    shard.unlink()
    page.write_page(smoke, copy)
    assert (work / "notes.txt").read_text() == (work / "assets" / "notes.txt").read_text() == "mine"
    assert not (copy / "notes.txt").exists()


TEXTS = ["zero", "goal", "cup", "of", "tie"]


def words():
    """A tokenizer of a few words."""
    model = tokenizers.models.WordLevel({text: i for i, text in enumerate(TEXTS)}, unk_token=TEXTS[0])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model))


def toy(x, ids, documents, labels=None, subjects=None, d_model=D_MODEL):
    """An explorer of activations in the first dimensions of the toy language model."""
    tokens = token_set([len(window) for window in ids], documents)
    for window, given in zip(tokens.ids, ids, strict=True):
        window[:] = given
    wide = torch.zeros(len(x), d_model)
    wide[:, : x.shape[1]] = x
    activations = activation_set(wide, tokens)
    part = MaterialPart(activations, tokens, activations.kept.numpy())
    return Explorer(subjects, Material(part, part, words(), language_model("llama"), labels, None), title="toy")


X = torch.tensor([[3.0, 0.0], [1.0, 2.0], [5.0, 0.0], [0.0, 2.0], [4.0, 1.0]])
"""With k = 1: feature 0 fires on rows 0, 2, 4 (3, 5, 4); feature 1 on rows 1 and 3 (2, 2)."""
IDS = [[0, 1, 3, 1], [0, 2, 4]]
"""Rows 0 … 2 are “goal”, “of”, “goal” after “zero”, “goal”, “of”; rows 3, 4 are “cup”, “tie”."""


@pytest.fixture(scope="module")
def small():
    sae, other = unit_sae(4, D_MODEL), unit_sae(4, D_MODEL)
    with torch.no_grad():  # the other seed's features in another order
        order = torch.tensor([1, 0, 3, 2])
        other.dictionary.D.copy_(other.dictionary.D[order])
        other.W_enc.copy_(other.W_enc[order])
    return toy(X, IDS, [0, 1], ["sport", "tech"], [Subject("topk", "TopK", sae, 0, {1: other})])


def test_summaries_by_hand(small):
    first, second, third, _ = small.summaries("topk")
    assert (first.density, first.maximum, first.mean_active) == (3 / 5, 5, 4)
    assert [(each.token, each.share) for each in first.tokens] == [("goal", 8 / 12), ("tie", 4 / 12)]
    assert first.purity == 8 / 12
    assert first.topic is None  # 8 of 12 on 3 tokens of sport, 4 on 2 of tech
    assert [(each.token, each.share) for each in second.tokens] == [("cup", 0.5), ("of", 0.5)]
    assert (third.name, third.density, third.purity, third.tokens) == ("never fires", 0, None, [])
    assert first.name == "start of a window"  # windows are shorter than what counts as their start


def test_matches_find_the_same_feature_in_another_order(small):
    for feature, partner in ((0, 1), (1, 0)):
        (match,) = small.feature("topk", feature).matches
        assert (match.seed, match.feature) == (1, partner)
        assert match.cosine == pytest.approx(1)
        assert match.centred_cosine == pytest.approx(1)
        assert match.firing_correlation == pytest.approx(1)
    assert small.summaries("topk")[0].stability == pytest.approx(1)
    assert small.feature("topk", 2).matches[0].firing_correlation is None  # neither fires


def test_contexts_show_the_codes_of_the_whole_window(small):
    top = small.feature("topk", 0).bands[0]
    assert (top.quantile, top.value) == (1, 5)
    context = top.contexts[0]
    assert context.tokens == ["zero", " goal", " of", " goal"]
    assert context.values == [0, 3, 0, 5]
    assert (context.marked, context.document, context.position, context.topic) == (3, 0, 3, "sport")


def test_no_context_is_shown_twice(small):
    contexts = [context for band in small.feature("topk", 0).bands for context in band.contexts]
    places = [(context.document, context.position) for context in contexts]
    assert sorted(places) == [(0, 1), (0, 3), (1, 2)]


def test_topics_by_hand(small):
    topics = {each.topic: (each.rate, each.mass) for each in small.feature("topk", 0).topics}
    assert topics == {"sport": (2 / 3, 8 / 12), "tech": (1 / 2, 4 / 12)}


def test_documents_without_a_topic_count_for_none():
    explorer = toy(X, IDS, [0, 1], ["sport", None], [Subject("topk", "TopK", unit_sae(4, D_MODEL), 0)])
    topics = {each.topic: (each.rate, each.mass) for each in explorer.feature("topk", 0).topics}
    assert topics == {"sport": (2 / 3, 8 / 12)}
    assert explorer.about.topics == ["sport"]


def test_histogram_holds_every_firing(small):
    histogram = small.feature("topk", 0).histogram
    assert (sum(histogram.counts), histogram.edges[0], histogram.edges[-1]) == (3, 0, 5)


def test_nearest_features_leave_the_feature_itself_out(small):
    assert {each.feature for each in small.feature("topk", 0).nearest} == {1, 2, 3}
    assert [each.cosine for each in small.feature("topk", 0).nearest] == [0, 0, 0]


def test_an_unknown_feature_or_anchor_is_an_error(small):
    with pytest.raises(IndexError, match="features 0 … 3"):
        small.feature("topk", 4)
    with pytest.raises(KeyError, match="anchor 0"):
        small.anchor("topk", 0)


def test_a_key_twice_is_an_error():
    subject = Subject("topk", "TopK", unit_sae(4, D_MODEL), 0)
    with pytest.raises(ValueError, match="'topk' occurs twice"):
        toy(X, IDS, [0, 1], None, [subject, subject])


def test_anchors_and_counterparts_by_hand():
    points = torch.zeros(3, D_MODEL)
    points[0, 0], points[1, 1], points[2, 2] = 2.0, 2.0, 2.0
    weights = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    archetypal = SAE(ArchetypalDictionary(points, weights, delta=1.0), 1, torch.zeros(D_MODEL), 1.0)
    subjects = [Subject("ra", "RA", archetypal, 0, delta=1.0), Subject("topk", "TopK", unit_sae(4, D_MODEL), 0)]
    explorer = toy(X, IDS, [0, 1], None, subjects)
    made = explorer.feature("ra", 0).archetypes
    assert [(each.anchor, each.weight) for each in made.anchors] == [(1, 0.75), (0, 0.25)]
    assert made.anchors[0].cosine == pytest.approx(3 / math.sqrt(10))
    assert (made.relaxation, made.hull_share) == (0, 1)
    assert explorer.anchors("ra") == [0, 1]  # no feature uses anchor 2
    near = explorer.anchor("ra", 0).contexts  # anchor 0 is at (2, 0): row 0 is 1 away, row 1 √5, row 4 √5
    assert near[0].tokens[near[0].marked] == " goal"
    assert (near[0].position, near[0].values) == (1, [0.0] * 4)
    # The atom of feature 0 is (0.5, 1.5) / ‖·‖: nearest to the second axis.
    assert [(each.dictionary, each.feature) for each in explorer.feature("ra", 0).counterparts] == [("topk", 1)]
    assert explorer.about.dictionaries[0].delta == 1.0
    assert explorer.about.dictionaries[1].delta is None


# --- the smoke study ---


@pytest.fixture(scope="module")
def smoke(smoke_runs):
    return of_study(Study(configure({"preset": "smoke"}), smoke_runs))


def test_smoke_study_shows_both_dictionaries(smoke):
    assert [each.key for each in smoke.about.dictionaries] == [TOPK, RA]
    assert smoke.about.topics == ["forest", "market", "music", "sea"]
    assert all(each.other_seeds == [1] for each in smoke.about.dictionaries)
    assert all(each.r2 is not None for each in smoke.about.dictionaries)
    assert smoke.anchors(TOPK) == []
    assert smoke.anchors(RA)


def test_a_feature_shows_its_codes_and_its_row_of_w(smoke):
    """Against dense codes of the same tokens, and the row of W itself."""
    dictionary = smoke._dictionaries[RA]
    heldout, sae = dictionary.material.heldout, dictionary.subject.sae
    rows = torch.from_numpy(dictionary.found.scanned)
    codes = sae.encode(heldout.activations.gather(rows)).dense(sae.n_features)
    feature = int((codes > 0).sum(dim=0).argmax())
    shown, fired = smoke.feature(RA, feature), codes[:, feature] > 0
    assert shown.firings == int(fired.sum())
    assert shown.summary.density == pytest.approx(float(fired.double().mean()))
    assert sum(shown.histogram.counts) == shown.firings
    top = rows[codes[:, feature].argmax()]
    assert shown.bands[0].contexts[0].document == int(heldout.activations.document[top])
    weights = sae.dictionary.W[feature].detach()
    largest = weights.topk(len(shown.archetypes.anchors)).indices
    assert [each.anchor for each in shown.archetypes.anchors] == largest.tolist()
    assert shown.archetypes.effective_anchors == pytest.approx(float(torch.special.entr(weights).sum().exp()), rel=1e-5)
    train = dictionary.material.train
    near = inspection.nearest_rows(
        sae, sae.dictionary.C[largest[:1]], train.activations, torch.from_numpy(train.rows), 1
    )
    documents = [each.document for each in smoke.anchor(RA, int(largest[0])).contexts]
    assert documents[0] == int(train.activations.document[near[0, 0]])


def test_probe_scores_are_those_of_the_probing_module(smoke):
    found = smoke._dictionaries[TOPK].probe
    scores = [summary.probe for summary in smoke.summaries(TOPK)]
    assert scores == found.auc.tolist()
    assert {summary.probe_topic for summary in smoke.summaries(TOPK)} <= {*smoke.about.topics, None}


def test_everything_is_json(smoke):
    for key in (TOPK, RA):
        for feature in range(0, 64, 7):
            json.dumps(page.plain(smoke.feature(key, feature)), allow_nan=False)


def test_frame_has_a_row_for_every_feature(smoke):
    frame = features_frame(smoke)
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.names == ["dictionary", "feature"]
    assert len(frame) == 128
    summary = smoke.summaries(RA)[5]
    assert frame.loc[(RA, 5), "name"] == summary.name
    assert frame.loc[(RA, 5), "maximum"] == summary.maximum
    assert frame.loc[(RA, 5), "tokens"] == [each.token for each in summary.tokens]
    assert frame["stability"].dtype == np.float64


def test_arms_that_are_not_there_are_an_error(tmp_path):
    study = Study(configure({"preset": "smoke"}), tmp_path)
    with pytest.raises(ConfigError, match="arms"):
        of_study(study, arms=("nothing",))


# --- the page's files ---


def read(path):
    """Name and content of a shard."""
    name, content = re.fullmatch(
        r"archsae\.receive\((\"[^\"]+\"),(.*)\);\n", path.read_text("ascii"), re.DOTALL
    ).groups()
    return json.loads(name), json.loads(content)


@pytest.fixture(scope="module")
def folder(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "explorer"
    assert page.write_page(smoke, folder) == folder / "index.html"
    return folder


def test_shards_hold_every_feature_once(smoke, folder):
    for key in (TOPK, RA):
        found = []
        for number in range(4):
            name, content = read(folder / "data" / "features" / key / f"{number}.js")
            assert name == f"features/{key}/{number}"
            found += content
        assert [feature["summary"]["feature"] for feature in found] == list(range(64))
        assert found[9]["summary"]["name"] == smoke.summaries(key)[9].name


def test_anchor_shards_hold_what_features_name(smoke, folder):
    anchors = {each["anchor"] for path in (folder / f"data/anchors/{RA}").iterdir() for each in read(path)[1]}
    named = {each.anchor for i in range(64) for each in smoke.feature(RA, i).archetypes.anchors}
    assert named == anchors
    assert not (folder / "data" / "anchors" / TOPK).exists()


def test_page_names_only_files_that_are_there(folder):
    html = (folder / "index.html").read_text()
    named = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert [name for name in named if not name.startswith("data:") and not (folder / name).is_file()] == []
    assert "http" not in html.replace("http-equiv", "")


def test_a_page_is_replaced_and_nothing_else_is(smoke, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    stale, own = copy / "data" / "features" / "gone" / "7.js", copy / "assets" / "notes.txt"
    stale.parent.mkdir()
    stale.write_text('archsae.receive("features/gone/7",[]);')
    own.write_text("years of work")
    page.write_page(smoke, copy)
    assert not stale.exists()
    assert own.read_text() == "years of work"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no explorer"):
        page.write_page(smoke, tmp_path / "papers")
    assert (tmp_path / "papers" / "thesis.txt").exists()


@pytest.mark.parametrize("hostile", ["</script><script>", "<!--", "]]>", "\u2028\u2029", "\x00\x1b", "\ud800", '"\\'])
def test_no_text_leaves_its_string(hostile):
    text = page.script("index", [hostile])
    assert text.isascii()
    assert not set("<>&\x00\x1b") & set(text)
    assert text.count("\n") == 1
    assert json.loads(text[len('archsae.receive("index",') : -len(");\n")]) == [hostile]


def test_numbers_are_rounded_and_nan_is_refused():
    assert page.plain({"a": [1.23456789, 0.0, 7, True]}) == {"a": [1.235, 0, 7, True]}
    with pytest.raises(ValueError, match="JSON"):
        page.script("index", [float("nan")])


def test_vendored_files_are_those_of_the_record():
    folder = page.ASSETS / "vendor"
    record = (folder / "README.md").read_text()
    for name in page.VENDORED:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() in record, name


# --- in a notebook ---


def test_widget_answers_what_the_page_asks(smoke):
    assert answer(smoke, "index")["content"]["about"]["title"]
    shard = answer(smoke, f"features/{RA}/3")
    assert shard["name"] == f"features/{RA}/3"
    assert [each["summary"]["feature"] for each in shard["content"]] == list(range(48, 64))
    assert answer(smoke, f"anchors/{RA}/0")["content"]
    for wrong in ("features/none/0", "../../secret", "features/ra/x", None, f"other/{RA}/0"):
        assert "is no part" in answer(smoke, wrong)["error"]


def test_widget_brings_scripts_and_styles(smoke):
    script = FeatureWidget(smoke).get_state()["_esm"]
    for part in ("export default", ".ax-panel", "Tabulator"):
        assert part in script


def test_widget_leaves_a_static_table_behind(smoke):
    bundle = FeatureWidget(smoke)._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/html"].count("<tr") == 13
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "style=" not in data["text/html"].replace('style="text-align: right;"', "")


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202e\x00", "`a`|b"])
def test_hostile_names_stay_text_in_the_static_table(small, text):
    class Hostile:
        about, feature, anchors, anchor = small.about, small.feature, small.anchors, small.anchor

        def summaries(self, key):
            return [dataclasses.replace(summary, name=text) for summary in small.summaries(key)]

    bundle = FeatureWidget(Hostile())._repr_mimebundle_()
    shown = (bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"]
    assert shown.count(f"<td>{html.escape(visible(text), quote=False)}</td>") == 4
    assert not re.search("[\u202e\x00]|<script|<img", shown)


def test_limits_are_those_of_the_builder(smoke):
    shown = smoke.feature(RA, 0)
    assert len(shown.nearest) == build.NEAREST
    assert len(shown.summary.promoted) == len(shown.summary.suppressed) == 10


# --- from the command line ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with an explorer in it."""
    runs = tmp_path_factory.mktemp("explored")
    assert main(["explore", "--preset", "smoke", "--set", "steps=5", "--runs", str(runs)]) == 0
    return runs


def test_the_command_writes_the_page_into_the_run_folder(runs):
    (html,) = runs.glob("smoke-*/explorer/index.html")
    about = read(html.parent / "data" / "index.js")[1]["about"]
    assert [each["key"] for each in about["dictionaries"]] == [TOPK, RA]
    assert "smoke" in about["note"]


def test_the_command_shows_the_arms_of_the_runs_frame(tmp_path):
    parameters = ["--set", "frame=raw", "--set", "steps=5"]
    assert main(["explore", "--preset", "smoke", *parameters, "--runs", str(tmp_path)]) == 0
    (html,) = tmp_path.glob("smoke-*/explorer/index.html")
    about = read(html.parent / "data" / "index.js")[1]["about"]
    assert tuple(each["key"] for each in about["dictionaries"]) == explored_arms("raw")


def test_the_command_names_an_unknown_arm(tmp_path, capsys):
    assert main(["explore", "--preset", "smoke", "--arms", f"{TOPK},unknown", "--runs", str(tmp_path)]) == 2
    assert "arms" in capsys.readouterr().err


def test_clean_deletes_the_page_and_what_a_killed_command_left(runs, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    (folder,) = copy.glob("smoke-*")
    (folder / ".explorer.partial" / "data").mkdir(parents=True)
    (folder / ".explorer.partial" / "data" / "index.js").write_text("")
    assert main(["clean", "--runs", str(copy)]) == 0
    assert not folder.exists()


def test_report_offers_the_frame_and_the_widget(runs):
    report = Report(configure({"preset": "smoke", "steps": 5}), runs)
    assert len(report.features_frame()) == 128
    assert isinstance(report.explore(), FeatureWidget)


def test_the_command_shows_the_same_arms_as_the_report(runs):
    (html,) = runs.glob("smoke-*/explorer/index.html")
    assert {path.name for path in (html.parent / "data" / "features").iterdir()} == {TOPK, RA}


def test_somebody_s_files_are_neither_replaced_nor_deleted_by_the_page(smoke, tmp_path):
    site = tmp_path / "site"
    for name in ("index.html", "data/index.js", "data/features/a/0.js"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("mine")
    with pytest.raises(FileExistsError, match="holds files and no explorer"):
        page.write_page(smoke, site)
    folder, told = tmp_path / "explorer", []
    page.write_page(smoke, folder, before=told.append)
    (files,) = told
    assert set(files) == set(page.page_files(folder))
    mine = folder / "data" / "features" / "mine" / "7.js"
    mine.parent.mkdir()
    mine.write_text("notes")
    page.write_page(smoke, folder)
    assert mine.read_text() == "notes"
    shard = folder / "data" / "features" / TOPK / "0.js"
    shard.write_text("notes")
    with pytest.raises(FileExistsError, match=r"0\.js is no file of an explorer and would be replaced"):
        page.write_page(smoke, folder)
    assert shard.read_text() == "notes"
    assert (folder / "index.html").is_file()
