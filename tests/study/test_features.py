"""Notebook 07: the rules of the gallery by hand, the page with hostile texts, both on the smoke study."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from archsae_core.metrics.artefacts import KINDS, WORD, kinds_of
from archsae_core.metrics.contexts import WindowTexts
from archsae_core.metrics.features import scan
from archsae_core.metrics.intervals import Interval
from archsae_study.engine.typed import from_json, to_json
from archsae_study.experiments import features as experiment
from archsae_study.experiments.features import DictionaryFeatures, FeaturesResult, Inspected
from archsae_study.experiments.probing import ProbeGain, ProbeRow, ProbingResult
from archsae_study.explorer import features_frame
from archsae_study.explorer.data import (
    About,
    Anchor,
    AnchorWeight,
    Archetypes,
    Band,
    Context,
    DictionaryAbout,
    Feature,
    Histogram,
    Match,
    Neighbour,
    Summary,
    TokenLogit,
    TokenMass,
    TopicFiring,
)
from archsae_study.pages import features as page
from archsae_study.report import Report
from archsae_study.settings.config import configure

TOKENS = 1000


def summary(feature, *, firings=50, **changes):
    one = Summary(
        feature=feature, name=f"“w{feature}”", density=firings / TOKENS, maximum=5.0, mean_active=2.0, stability=0.5,
        probe=0.6, probe_topic="sport", purity=0.5, entropy=2.0, topic=None, tokens=[], promoted=[], suppressed=[],
    )  # fmt: skip
    return replace(one, **changes)


FEATURES = [
    summary(0, firings=19, stability=0.99, entropy=0.0, probe=1.0),  # too rare to be judged
    summary(1, firings=101, stability=1.0, entropy=0.0, probe=1.0),  # dense
    summary(2, firings=20, stability=0.9),
    summary(3, firings=100, stability=-0.1, probe=0.5),
    summary(4, entropy=1.0, purity=0.6),
    summary(5, entropy=1.0, purity=0.7),
    summary(6, probe=0.8, topic="sport"),
    summary(7, probe=0.9, probe_topic=None),  # tells no topic in training
    summary(8, firings=0, name="never fires", stability=0.1, probe=0.5, purity=None, entropy=None, maximum=0.0),
    summary(9, name="“a”, “b”, “c” …", maximum=9.0),
]


# --- rules ---


def test_rules_by_hand():
    found = {rule: (one and one.feature, reason) for rule, one, reason in experiment.choose(FEATURES, TOKENS)}
    dead = found.pop("dead")
    assert found == {"stable": (2, ""), "unstable": (3, ""), "pure": (5, ""), "topic": (6, ""), "densest": (1, "")}
    assert dead[0] is None
    assert dead[1].startswith("1 of 10:")


def test_of_equals_the_first_is_chosen():
    found = {rule: one for rule, one, _ in experiment.choose([summary(i) for i in range(3)], TOKENS)}
    assert [found[rule].feature for rule in ("stable", "unstable", "pure", "topic", "densest")] == [0] * 5


def test_why_nothing_is_shown():
    lone = [replace(one, stability=None, probe=None, probe_topic=None) for one in FEATURES]
    reasons = {rule: (one, reason) for rule, one, reason in experiment.choose(lone, TOKENS)}
    assert reasons["stable"] == reasons["unstable"] == (None, "there is one seed")
    assert reasons["topic"] == (None, "the text has no topics that can be probed")
    rare = experiment.choose([summary(0, firings=1)], TOKENS)
    assert [one and one.feature for _, one, _ in rare] == [None, None, None, None, 0, None]
    assert "often enough" in rare[0][2]
    silent = {rule: reason for rule, _, reason in experiment.choose([FEATURES[8]], TOKENS)}
    assert silent["densest"] == "no feature fires"


def test_counts_by_hand():
    formatting = np.zeros(10)
    formatting[[0, 2, 3]] = 0.9, 0.5, 0.4  # feature 0 is not judged, feature 3 is no artefact
    found = experiment.overview(FEATURES, formatting, TOKENS)
    assert (found.dead, found.dense, found.judged) == (1, 1, 7)
    assert (found.named, found.with_topic, found.artefacts) == (6, 1, 1)
    assert found.stability == 0.5
    assert found.entropy == 2.0


def test_the_feature_in_depth():
    assert experiment.inspected_feature(FEATURES, TOKENS, 8) == ("parameter", 8)
    assert experiment.inspected_feature(FEATURES, TOKENS, None) == ("topic", 6)
    silent = [replace(one, probe=None, probe_topic=None) for one in FEATURES]
    assert experiment.inspected_feature(silent, TOKENS, None) == ("stable", 2)
    lone = [replace(one, stability=None) for one in silent]
    assert experiment.inspected_feature(lone, TOKENS, None) == ("strongest", 9)
    assert experiment.inspected_feature([summary(0, firings=1)], TOKENS, None) == ("strongest", 0)


# --- the page ---

HOSTILE = (
    "<script>alert(1)</script> | $x$ \u202e\x00\n</td><img src=x onerror=alert(1)> [a](http://b.c) **d** `e` &amp;"
)


def context():
    return Context([HOSTILE, " goal", HOSTILE], [0.0, 2.0, 1.0], 1, 0, 1, HOSTILE)


def hostile():
    """A result with hostile texts wherever text comes from data."""
    bands = [Band(quantile, 2.0, [context()] * 3) for quantile in (1.0, 0.9, 0.75, 0.5, 0.25, 0.1)]
    logits = [TokenLogit(HOSTILE, 1, 2.0)]
    one = summary(
        0, name=HOSTILE, probe_topic=HOSTILE, topic=HOSTILE, tokens=[TokenMass(HOSTILE, 0.5)], promoted=logits,
        suppressed=logits,
    )  # fmt: skip
    feature = Feature(
        one, 50, Histogram([0.0, 1.0, 2.0], [20, 30]), [TopicFiring(HOSTILE, 0.1, 0.9)], bands, [],
        [Neighbour("topk", 0, 0.7)], [Match(1, 0, 0.9, 0.8, None, HOSTILE)],
        Archetypes([AnchorWeight(4, 0.6, 0.9)], 3.0, 0.5, 0.8),
    )  # fmt: skip
    formatting = {"white space": 0.0, "punctuation": 0.5, "markup": 0.33}
    found = []
    for key, kind in (("topk-kmeans-own", "free"), ("ra-own", "archetypal")):
        about = DictionaryAbout(
            key, {"free": "TopK", "archetypal": "RA-SAE"}[kind], kind, 1, 4, 1, "x", 0, [1], 1.0, 0.9
        )
        gallery = [
            experiment.Chosen(rule, chosen, bands[:1] if chosen else [], formatting if chosen else {}, reason)
            for rule, chosen, reason in experiment.choose([one], TOKENS)
        ]
        found.append(DictionaryFeatures(about, experiment.overview([one], np.ones(1), TOKENS), gallery, [HOSTILE]))
    feature = replace(feature, counterparts=[Neighbour("topk-kmeans-own", 0, 0.7)])
    inspected = Inspected("ra-own", "topic", feature, formatting, [0.6, 0.4], [Anchor(4, [context()])])
    about = About("title", "model", 0, "text", TOKENS, 3, [HOSTILE], [one.about for one in found], "note")
    return FeaturesResult(about, found, inspected)


class Tags(HTMLParser):
    """Names of the tags of a page, and the cells of each row."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.rows = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "tr":
            self.rows.append(0)
        self.rows[-1:] = [count + (tag in ("td", "th")) for count in self.rows[-1:]]


PARTS = ("headline", "gallery", "inspected", "contexts_table", "matches_table", "logits_table", "anchors_table")


@pytest.mark.parametrize("part", PARTS)
def test_hostile_texts_stay_text(part):
    shown = getattr(page, part)(hostile()).data
    found = Tags(markdown2html_mistune(shown))
    allowed = {"p", "strong", "em", "ul", "li", "mark", "b", "br", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert found.names <= allowed
    assert not {"onerror", "src"} & set(found.attributes)
    assert len(set(found.rows)) <= 1  # a bar in a token starts no cell
    assert not re.search("[\u202e\x00]", shown)


def test_gallery_has_at_most_twelve_rows_and_says_what_is_an_artefact():
    shown = page.gallery(hostile()).data
    assert len(shown.splitlines()) - 2 == 12
    assert shown.count("**artefact**: of its mass, 50% on punctuation and 33% on markup") == 10
    assert "none of 1" in shown
    assert "**Artefact:**" in page.inspected(hostile()).data


def test_a_feature_of_words_is_no_artefact():
    assert page.artefact({"white space": 0.1, "punctuation": 0.3, "markup": 0.09}) == ""


def test_figures_can_be_drawn():
    figure = page.profile(hostile())
    figure.canvas.draw()  # a formula in a label would fail here
    assert figure.axes[2].lines[0].get_ydata().tolist() == [0.6, 0.4]
    long = hostile()
    alike = [replace(long.inspected.feature.topics[0], topic=f"https://example.org/topics/{i}") for i in range(3)]
    feature = replace(long.inspected.feature, topics=alike)
    figure = page.profile(replace(long, inspected=replace(long.inspected, feature=feature)))
    assert [label.get_text()[-9:] for label in figure.axes[1].get_yticklabels()] == [f"/topics/{i}" for i in (2, 1, 0)]
    assert len({bar.get_y() for bar in figure.axes[1].patches}) == 3
    silent = hostile()
    feature = replace(silent.inspected.feature, firings=0, topics=[], bands=[], histogram=Histogram([0.0, 1.0], [0]))
    silent = replace(silent, inspected=replace(silent.inspected, feature=feature))
    page.profile(silent).canvas.draw()
    assert "no context" in page.contexts_table(silent).data
    plt.close("all")


def probing_result():
    arms = ("topk-random-own", "topk-kmeans-own", "ra-own", "topk-kmeans-shared")
    sizes = {str(size): Interval(0.1 * size, None, None) for size in (1, 5, 20)}
    rows = [ProbeRow(arm, arm, True, 3, sizes, 2.0, 9.0) for arm in arms]
    raw = ProbeRow("raw activations", "raw", False, 1, sizes | {"all": Interval(0.95, None, None)}, None, 0.0)
    gains = tuple(ProbeGain("g1", size, Interval(0.01 * size, 0.0, 0.1)) for size in (1, 5, 20))
    return ProbingResult("", 5, (HOSTILE,) * 13, 16, (100, 50), (10, 5), (*rows, raw), gains)


def test_probes_of_the_contrasts_are_shown():
    shown = page.probing_table(probing_result())
    assert list(shown.index) == ["topk-random-own", "topk-kmeans-own", "ra-own", "raw"]
    assert shown.loc["ra-own", "5 features"] == "0.500"
    text = page.probing_sentence(probing_result()).data
    assert "+0.050 [+0.000, +0.100]" in text
    assert "reaches 0.950" in text
    assert "and 1 more." in text
    assert Tags(markdown2html_mistune(text)).names <= {"p", "span"}
    axes = page.probing_figure(probing_result()).axes
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == list(shown.index)[::-1]
    plt.close("all")


def test_why_nothing_was_probed():
    found = ProbingResult("the text has no $topic$ labels")
    assert page.probing_sentence(found).data.startswith("Not testable here: the text has no")
    page.probing_figure(found).canvas.draw()
    plt.close("all")


# --- the smoke study ---


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return Report(configure({"preset": "smoke"}), tmp_path_factory.mktemp("runs"), compute=True)


@pytest.fixture(scope="module")
def result(report):
    return report.table(experiment.TABLE)


def test_the_result_reads_back_as_it_was(result):
    assert isinstance(result, FeaturesResult)
    assert from_json(to_json(result), FeaturesResult) == result


def test_choices_are_those_of_the_frame_of_all_features(report, result):
    frame = features_frame(report.explorer)
    for one in (result.free, result.archetypal):
        every = frame.loc[one.about.key]
        assert one.names == list(every["name"])
        fit = every[(every["density"] * result.about.heldout_tokens >= 19.5) & (every["density"] <= 0.1)]
        chosen = {found.rule: found.summary for found in one.gallery}
        assert chosen["stable"].feature == fit["stability"].idxmax()
        assert chosen["unstable"].feature == fit["stability"].idxmin()
        assert chosen["pure"].entropy == fit["entropy"].min()
        assert chosen["topic"].feature == fit[fit["probe_topic"].notna()]["probe"].idxmax()
        assert chosen["densest"].feature == every["density"].idxmax()
        assert [band.quantile for band in chosen["topic"] and one.gallery[0].bands] == [1.0, 0.5, 0.1]
    assert (
        result.inspected.feature.summary.feature
        == {c.rule: c.summary for c in result.archetypal.gallery}["topic"].feature
    )
    assert result.inspected.weights == sorted(result.inspected.weights, reverse=True)
    assert [anchor.anchor for anchor in result.inspected.anchors] == [
        one.anchor for one in result.inspected.feature.archetypes.anchors
    ]


def test_formatting_mass_is_that_of_the_tokens_in_their_windows(report, result):
    study, one = report.study, result.inspected
    heldout = study.heldout_activations
    values, rows = scan(page.sae(report), heldout).firings(one.feature.summary.feature)
    texts = WindowTexts(study.tokens.heldout, study.tokenizer)
    mass = dict.fromkeys(KINDS, 0.0)
    for value, window, position in zip(values, heldout.window[rows], heldout.position[rows], strict=True):
        kind = kinds_of(texts[int(window)])[int(position)]
        if kind != WORD:
            mass[KINDS[kind]] += float(value)
    assert one.formatting == pytest.approx(
        {kind: part / values.sum(dtype=float) for kind, part in mass.items()}, abs=1e-6
    )
    assert sum(mass.values()) > 0


@pytest.mark.parametrize("dictionary", ["free", "archetypal"])
def test_an_explained_text_has_the_codes_of_the_scan(report, result, dictionary):
    """A held-out window, given as text, against what was read of it when its activations were extracted."""
    study, sae = report.study, page.sae(report, dictionary)
    heldout, tokens = study.heldout_activations, study.tokens.heldout
    texts = ["".join(WindowTexts(tokens, study.tokenizer)[window]) for window in range(len(tokens.ids))]
    ids = study.tokenizer(texts, add_special_tokens=False)["input_ids"]
    window = next(i for i, found in enumerate(ids) if found == tokens.ids[i].tolist() and len(found) > 8)
    shown = page.explain(report, texts[window], dictionary, top=2)
    assert shown.iloc[0, 1] == "not read: first position"
    assert len(shown) == len(ids[window])
    rows = torch.as_tensor((heldout.window == window).nonzero().flatten())
    codes = sae.encode(heldout.gather(rows))
    value, place = codes.values.max(dim=1)
    feature = codes.indices.gather(1, place[:, None])[:, 0]
    names = getattr(result, dictionary).names
    for row in range(len(rows)):
        code, index, name = shown.iloc[row + 1, 1].split(" · ", 2)
        assert float(code) == pytest.approx(value[row].item(), abs=0.02)
        assert int(index) == feature[row]
        assert names[int(index)].startswith(name[:8])


def test_wrong_texts_and_dictionaries_are_an_error(report):
    with pytest.raises(ValueError, match="at least 2"):
        page.explain(report, "")
    with pytest.raises(ValueError, match="free or archetypal"):
        page.explain(report, "halo bace", "topk")


def test_a_long_text_goes_on_in_another_window(report):
    shown = page.explain(report, "halo bace " * 20, top=1)
    skipped = [place for place, said in enumerate(shown["strongest feature"]) if said == "not read: first position"]
    assert skipped == list(range(0, len(shown), 32))
    assert len(skipped) > 1


def test_explained_tokens_are_text(report):
    html = page.explain(report, "<b>\u202e bace").to_html()
    assert "<b>" not in html
    assert "\u202e" not in html


def test_a_feature_may_be_asked_for_in_the_raw_frame(report):
    raw = Report(configure({"preset": "smoke", "frame": "raw", "feature": 5}), report.folder.parent, compute=True)
    found = raw.table(experiment.TABLE)
    assert [one.about.key for one in found.dictionaries] == ["raw-topk-kmeans-own", "raw-ra-own"]
    assert (found.inspected.rule, found.inspected.feature.summary.feature) == ("parameter", 5)
