"""What people are told about their text before anything is computed."""

import json
import random
import re

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from archsae_core.config import ConfigError, CorpusConfig
from archsae_core.data.corpus import describe, load_text
from archsae_study.engine.source import source_of
from archsae_study.engine.study import Study
from archsae_study.settings.config import configure


def test_documents_layout_and_copies_are_told(tmp_path):
    generator = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    documents = [" ".join(generator.choices(words, k=40)) for _ in range(60)]
    documents[50], documents[51] = documents[3].upper(), f"{documents[4]} and more"
    lines = ["\n".join(documents[i : i + 15]) for i in range(0, 60, 15)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    text = {"preset": "smoke", "text": str(tmp_path / "a.txt")}
    told = Study(configure({**text, "text_layout": "lines"}), tmp_path / "runs").text_notes()
    assert told[0].endswith("a.txt: 60 documents of 40 words in the median")
    assert len(told) == 2
    assert "1 of 60 documents are exact copies and 1 near copies of others" in told[1]
    assert "documents 4 and 51 (" in told[1]
    assert "5 and 52 (" in told[1]
    # four blocks of 15 lines; the last one shares passages with the first
    told = Study(configure(text), tmp_path / "runs").text_notes()
    assert told[0].endswith("4 documents of 600 words in the median")
    assert "set text_layout to lines" in told[1]
    assert "0 of 4 documents are exact copies and 1 near copies of others" in told[2]


def test_activations_of_a_text_with_invisible_characters_are_not_those_that_earlier_versions_split(tmp_path):
    """Which took a word with a soft hyphen for two, and so missed copies; those of every other text stay."""
    for name, hyphen in (("plain", ""), ("soft", "\u00ad")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"Docu{hyphen}ment {i} of many words" for i in range(9)))
    keys = {
        name: source_of(configure({"preset": "smoke", "text": str(tmp_path / f"{name}.txt")}))
        for name in ("plain", "soft")
    }
    assert keys["soft"].keys() - keys["plain"].keys() == {"invisible"}


def test_rows_without_text_are_counted(tmp_path):
    rows = ["one two", None, "", "three four", "  ", "five six", "seven eight"]
    lines = [json.dumps({"text": text}) for text in rows] + [json.dumps({"other": 1})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = load_text(CorpusConfig(text=str(tmp_path / "a.jsonl")))
    assert (len(corpus.texts), corpus.empty) == (4, 4)
    assert describe(corpus, "a").endswith("4 documents of 2 words in the median, 4 without text left out")
    (tmp_path / "b.txt").write_text("one\n\n\n\ntwo\n\nthree")
    assert load_text(CorpusConfig(text=str(tmp_path / "b.txt"))).empty == 0


def test_one_long_document_makes_the_parts_uneven_and_bounds_the_anchors(tmp_path):
    generator = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    texts = [" ".join(generator.choices(words, k=4)) for _ in range(60)]
    texts.append(" ".join(generator.choices(words, k=9000)))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    study = Study(configure({"preset": "smoke", "text": str(tmp_path / "a.jsonl")}), tmp_path / "runs")
    usable = study.usable_for_anchors()
    assert f"the parts of the documents are uneven, .* as the smallest has: {usable:,}, of" in told(study)
    with pytest.raises(ConfigError, match=rf"n_anchors = 2000: of 2 disjoint parts .*, the smallest has {usable} act"):
        study.variant(n_anchors=2000).check()
    study.check()
    clustered = study._anchor_rows(0)
    assert len(clustered) <= usable < 1.02 * len(clustered)


def told(study):
    return re.sub("and every k-means clusters as many activations", ".*", study.text_notes()[-1])


@pytest.mark.parametrize(("vocabulary", "said"), [(["hello"], True), ([f"word{i}" for i in range(50)], False)])
def test_a_text_that_the_tokenizer_does_not_know_is_told_of(tmp_path, monkeypatch, vocabulary, said):
    known = {word: place for place, word in enumerate(["[UNK]", *vocabulary])}
    words = Tokenizer(WordLevel(known, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    (tmp_path / "a.txt").write_text("\n\n".join(" ".join(f"word{(i + j) % 50}" for j in range(9)) for i in range(20)))
    found = Study(configure({"preset": "smoke", "text": str(tmp_path / "a.txt")}), tmp_path / "runs")
    monkeypatch.setattr(Study, "tokenizer", PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"))
    assert any("100% of its tokens are unknown to the model" in line for line in found.text_notes()) == said
