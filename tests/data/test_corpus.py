import json
import os
import re
import time
from itertools import pairwise

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from archsae_core.data import corpus
from archsae_core.data.corpus import load_text, split_documents, synthetic
from archsae_core.data.text_files import TextError
from archsae_study.settings.config import configure

WIKI = [
    "",
    " = Sea = \n",
    "",
    " The sea is large . \n",
    " = = Tides = = \n",
    " They turn . \n",
    " = Wood = \n",
    " Trees . \n",
]
WIKI += [" = Song = \n", " a = b = c \n"]
ARTICLES = ("= Sea =\nThe sea is large .\n= = Tides = =\nThey turn .", "= Wood =\nTrees .", "= Song =\na = b = c")


def smoke(**changes):
    return configure({"preset": "smoke", **changes})


def text(path, content, **changes):
    """Texts and labels read from a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = load_text(smoke(text=str(path), **changes).corpus)
    return found.texts, found.labels


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


# --- files ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\nmore\n\ntwo\n \t\nthree\n\n\n\n", ("one\nmore", "two", "three")),
        ("one\ntwo\n  three\n", ("one", "two", "  three")),
        ("one\r\nmore\r\n\r\ntwo\r\n\r\nthree", ("one\nmore", "two", "three")),
        (b"\xef\xbb\xbfone\n\ntwo\n\nthr\xc3\xa9", ("one", "two", "thré")),
        ("a\u2028b\n\ntwo\n\nthree", ("a\u2028b", "two", "three")),
        ("".join(line or " \n" for line in WIKI), ARTICLES),
    ],
    ids=["blank lines", "no blank line", "windows", "byte order mark", "line separator", "wikitext"],
)
def test_txt(tmp_path, content, expected):
    assert text(tmp_path / "a.txt", content) == (expected, None)


@pytest.mark.parametrize(
    ("layout", "content", "expected"),
    [
        ("lines", "one\nmore\n\ntwo\n", ("one", "more", "two")),
        ("blocks", "one\nmore\n\n\ntwo\n\nthree", ("one\nmore", "two", "three")),
        ("lines", "".join(line or " \n" for line in WIKI), tuple(line.strip("\n") for line in WIKI if line.strip())),
        ("auto", "one\rmore\r\rtwo\r\rthree", ("one\nmore", "two", "three")),
    ],
    ids=["lines", "blocks", "lines of wikitext", "old Macintosh"],
)
def test_layout_of_txt(tmp_path, layout, content, expected):
    assert text(tmp_path / "a.txt", content, text_layout=layout) == (expected, None)


def test_few_large_blocks_are_said(tmp_path):
    stray = "\n\n".join("\n".join(f"document {i} of {j}" for i in range(50)) for j in range(4))
    (tmp_path / "a.txt").write_text(stray)
    found = load_text(smoke(text=str(tmp_path / "a.txt")).corpus)
    assert len(found.texts) == 4
    assert len(found.notes) == 1
    assert re.search(r"a\.txt'.* 4 documents with a median of 50 lines: set text_layout to lines", found.notes[0])
    for layout, n_documents in (("blocks", 4), ("lines", 200)):
        found = load_text(smoke(text=str(tmp_path / "a.txt"), text_layout=layout).corpus)
        assert (len(found.texts), found.notes) == (n_documents, ())
    (tmp_path / "b.txt").write_text("\n\n".join(["a\nb", "c", "d\ne\nf"]))
    assert load_text(smoke(text=str(tmp_path / "b.txt")).corpus).notes == ()


def test_csv_with_quotes_and_labels(tmp_path):
    content = 'id,body,topic\n1,"one, ""two""\nthree",x\n2,,y\n3,007,"y"\n4,NA,z\n'
    found = text(tmp_path / "a.csv", content, text_field="body", label_field="topic")
    assert found == (('one, "two"\nthree', "007", "NA"), ("x", "y", "z"))


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        ('text\n5" pipe\ntwo\nthree\n', ['5" pipe', "two", "three"]),
        ('text\none\n5" pipe\n"a\nb"\n', ["one", '5" pipe', "a\nb"]),
        ('text\none\n"the ""end"""\nthree\n', ["one", 'the "end"', "three"]),
    ],
)
def test_quotes_that_open_nothing_or_are_closed_are_text(tmp_path, content, documents):
    assert list(text(tmp_path / "a.csv", content)[0]) == documents


def test_a_row_that_looks_like_a_title_is_a_row(tmp_path):
    rows = [" = Prices = ", "one", "two", " = Costs = ", "three"]
    assert list(text(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": row}) for row in rows))[0]) == rows
    wiki = [" = Prices = \n", " one \n", "", " two \n", " = Costs = \n", " three \n", " = Sums = \n"]
    found = text(tmp_path / "b.jsonl", "\n".join(json.dumps({"text": row}) for row in wiki))[0]
    assert list(found) == ["= Prices =\none\ntwo", "= Costs =\nthree", "= Sums ="]


def test_labels_that_are_shown_alike_are_one_topic(tmp_path):
    rows = [("1", "caf\u00e9"), ("2", "cafe\u0301"), ("3", " caf\u00e9\n")]
    content = "\n".join(json.dumps({"text": body, "topic": topic}) for body, topic in rows)
    assert set(text(tmp_path / "a.jsonl", content, label_field="topic")[1]) == {"caf\u00e9"}


def test_labels_of_two_types_that_would_be_one_topic_are_refused(tmp_path):
    rows = [{"text": "one", "topic": 1}, {"text": "two", "topic": 2}, {"text": "three", "topic": "1"}]
    content = "\n".join(map(json.dumps, rows))
    with pytest.raises(TextError, match=r"rows 1 and 3 hold 1 and '1', which mean one topic"):
        text(tmp_path / "a.jsonl", content, label_field="topic")
    for other in ("1.0", "true"):
        with pytest.raises(TextError, match=r"rows 1 and 3 hold 1 and .*, which mean one topic"):
            text(tmp_path / "c.jsonl", content.replace('"1"', other), label_field="topic")
    assert text(tmp_path / "b.jsonl", content.replace('"1"', "1"), label_field="topic")[1] == ("1", "2", "1")


def test_a_folder_s_name_that_hides_a_column_is_refused(tmp_path):
    folder = tmp_path / "a.parquet" / "text=en"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two", "three"]}), folder / "0.parquet")
    with pytest.raises(TextError, match="column 'text' is in the files and in the name of the folder 'text=en'"):
        load_text(smoke(text=str(tmp_path / "a.parquet")).corpus)


@pytest.mark.parametrize("header", ["body,body,topic", "body,topic,topic"])
def test_csv_that_names_a_column_twice_is_refused(tmp_path, header):
    with pytest.raises(TextError, match=r"its header names '(body|topic)' twice: give each column a name of its own"):
        text(tmp_path / "a.csv", f"{header}\none,two,x\n", text_field="body", label_field="topic")


def test_jsonl_with_labels_and_other_columns(tmp_path):
    rows = [{"body": "one", "topic": "x"}, {"body": "  ", "topic": "y"}, {"body": "two", "topic": 3, "extra": [1]}]
    rows += [{"body": None, "topic": "z"}, {"body": "a\u2028b", "topic": "z"}]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found = text(tmp_path / "a.jsonl", content, text_field="body", label_field="topic")
    assert found == (("one", "two", "a\u2028b"), ("x", "3", "z"))


def test_a_suffix_in_capitals_is_the_same_kind_of_file(tmp_path):
    lines = "one\ntwo\nthree\n"
    assert text(tmp_path / "A.TXT", lines) == text(tmp_path / "a.txt", lines)
    rows = '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n'
    assert text(tmp_path / "A.JSONL", rows) == text(tmp_path / "a.jsonl", rows) != text(tmp_path / "b.txt", rows)


def test_parquet_with_labels(tmp_path):
    path = parquet(
        tmp_path / "a.parquet", text=["one", None, "two", "three"], topic=["x", "y", "y", "z"], other=[0] * 4
    )
    found = load_text(smoke(text=str(path), label_field="topic").corpus)
    assert (found.texts, found.labels) == (("one", "two", "three"), ("x", "y", "z"))


def test_folder_of_parquet_parts_as_spark_writes_it(tmp_path):
    folder = tmp_path / "a.parquet"
    for topic, texts in (("wood", ["three"]), ("sea", ["one", "two"])):
        (folder / f"topic={topic}").mkdir(parents=True)
        parquet(folder / f"topic={topic}" / "part-00000-ab12.snappy.parquet", text=texts)
    (folder / "_SUCCESS").touch()
    found = load_text(smoke(text=str(folder), label_field="topic").corpus)
    assert (found.texts, found.labels) == (("one", "two", "three"), ("sea", "sea", "wood"))


def test_class_names_of_a_parquet_file_that_datasets_wrote(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), topic=datasets.ClassLabel(names=["sea", "wood"]))
    rows = {"text": ["one", "two", "three"], "topic": [0, 1, 0]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "a.parquet")
    found = load_text(smoke(text=str(tmp_path / "a.parquet"), label_field="topic").corpus)
    assert found.labels == ("sea", "wood", "sea")
    rows["topic"][1] = -1  # no label, as datasets writes it
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TextError, match=r"label_field = 'topic'.*no label, such as row 2"):
        load_text(smoke(text=str(tmp_path / "a.parquet"), label_field="topic").corpus)


def test_entities_are_decoded_and_counted_unless_they_are_the_text(tmp_path):
    content = "caf&#233;\n\n&amp;lt;b&amp;gt;\n\nR&D\n\nplain"
    (tmp_path / "a.txt").write_text(content)
    found = load_text(smoke(text=str(tmp_path / "a.txt")).corpus)
    assert (found.texts, found.decoded) == (("café", "<b>", "R&D", "plain"), 2)
    found = load_text(smoke(text=str(tmp_path / "a.txt"), decode_entities=False).corpus)
    assert (found.texts, found.decoded) == (tuple(content.split("\n\n")), 0)


def test_lines_of_wikitext_become_articles(tmp_path):
    assert load_text(smoke(text=str(parquet(tmp_path / "a.parquet", text=WIKI))).corpus).texts == ARTICLES


def test_rows_that_merely_contain_headings_stay_rows(tmp_path):
    rows = ["Intro", " = Sea = \n", "More"]
    assert load_text(smoke(text=str(parquet(tmp_path / "a.parquet", text=rows))).corpus).texts == tuple(rows)


# --- datasets in the hub's layout ---


def save_dataset(folder):
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(text=datasets.Value("string"), topic=datasets.ClassLabel(names=["sea", "wood"]))
    rows = {"text": ["one", "", "two", "three"], "topic": [0, 0, 1, 0]}
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "train-00000-of-00001.parquet")
    other = {"text": ["held", "out", "only"], "topic": [1, 1, 1]}
    datasets.Dataset.from_dict(other, features).to_parquet(folder / "test-00000-of-00001.parquet")


@pytest.fixture
def quiet_datasets():
    datasets.utils.disable_progress_bars()
    yield
    datasets.utils.enable_progress_bars()


@pytest.mark.usefixtures("quiet_datasets", "hub")
def test_local_dataset_folder_gives_split_train_with_names_for_classes(tmp_path, capfd):
    save_dataset(tmp_path / "data")
    found = load_text(smoke(text=str(tmp_path / "data"), label_field="topic").corpus)
    assert (found.texts, found.labels) == (("one", "two", "three"), ("sea", "wood", "sea"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("quiet_datasets")
def test_hub_dataset_with_named_configs_is_cached_and_later_needs_no_network(hub, capfd):
    folder = hub.repository("user/MyNews")
    for name in ("a", "b"):
        parquet(folder / f"{name}.parquet", text=[f"{name}{i}" for i in range(3)])
    files = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("a", "b"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    assert load_text(smoke(text="user/MyNews:b").corpus).texts == ("b0", "b1", "b2")
    with pytest.raises(TextError, match=r"text = 'user/MyNews'.*name:config"):
        load_text(smoke(text="user/MyNews").corpus)
    hub.close()
    assert load_text(smoke(text="user/MyNews:b").corpus).texts == ("b0", "b1", "b2")
    with pytest.raises(TextError, match=r"text = 'user/MyNews:a'.*nor cached"):
        load_text(smoke(text="user/MyNews:a").corpus)
    assert not datasets.config.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_data_is_refused(tmp_path, hub):
    (tmp_path / "data").mkdir()
    with pytest.raises(TextError, match=r"text = .*cannot be loaded"):
        load_text(smoke(text=str(tmp_path / "data")).corpus)


@pytest.mark.parametrize(
    ("name", "reason"), [("user/gated", "accept its terms"), ("user/none", "no such"), ("bbc news", "no such")]
)
def test_hub_refusals_name_the_text_and_the_fix(hub, name, reason):
    with pytest.raises(TextError, match=f"text = '{name}'.*{reason}"):
        load_text(smoke(text=name).corpus)


def test_unreachable_hub_is_said_within_seconds(hub):
    hub.close()
    start = time.monotonic()
    with pytest.raises(TextError, match=r"text = 'user/news:b'.*cannot be reached.*bbc-news"):
        load_text(smoke(text="user/news:b").corpus)
    assert time.monotonic() - start < 5


# --- embedded and synthetic ---


def test_embedded_news_takes_its_labels_from_folders_and_survives_latin_1(tmp_path, monkeypatch):
    for name, content in (("b/001", "£1".encode()), ("a/002", b"two"), ("a/001", b"\xa31")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_bytes(content)
    monkeypatch.setattr(corpus, "text_folder", lambda name: tmp_path)
    found = load_text(smoke(text="bbc-news").corpus)
    assert (found.texts, found.labels) == (("£1", "two", "£1"), ("a", "a", "b"))


def embed(monkeypatch, tmp_path):
    """Two texts in place of the embedded ones: news by topic, and rows by source."""
    for name, content in (("b/001", "&#163;1"), ("a/002", "two"), ("a/001", "one")):
        (tmp_path / "news" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "news" / f"{name}.txt").write_text(content)
    (tmp_path / "rows").mkdir()
    parquet(
        tmp_path / "rows" / "documents.parquet", text=["an essay of mine", "a review"], source=["essays", "reviews"]
    )
    folders = {"bbc-news": tmp_path / "news", "sae-probes": tmp_path / "rows"}
    monkeypatch.setattr(corpus, "text_folder", folders.__getitem__)


def test_embedded_texts_are_joined_with_labels_for_those_that_have_topics(tmp_path, monkeypatch):
    embed(monkeypatch, tmp_path)
    found = load_text(smoke(text="bbc-news+sae-probes").corpus)
    assert found.texts == ("one", "two", "£1", "an essay of mine", "a review")
    assert found.labels == ("a", "a", "b", None, None)
    assert (found.topics, found.decoded) == (("a", "b"), 1)
    parts = [("sae-probes: essays", 1, 4), ("bbc-news", 3, 3), ("sae-probes: reviews", 1, 2)]
    assert corpus.composition(found, "all") == tuple(parts)
    assert (
        corpus.describe(found, "all")
        == "all: 5 documents of 1 words in the median, 2 topics, HTML entities decoded in 1"
    )
    names, index = corpus.topic_indices(found.labels)
    assert (names, index.tolist()) == (("a", "b"), [0, 0, 1, -1, -1])


def test_a_text_without_topics_alone_has_no_labels(tmp_path, monkeypatch):
    embed(monkeypatch, tmp_path)
    parquet(tmp_path / "rows" / "documents.parquet", text=["a", "b", "c"], source=["s"] * 3)
    found = load_text(smoke(text="sae-probes").corpus)
    assert (found.labels, found.topics) == (None, ())
    assert corpus.composition(found, "all") == (("sae-probes: s", 3, 3),)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bbc-news+mine", "'mine' is not embedded"),
        ("bbc-news+bbc-news", "twice"),
        ("sae-probes+", "a name is missing"),
    ],
)
def test_what_cannot_be_joined(name, reason):
    with pytest.raises(TextError, match=f"text = {re.escape(repr(name))}.*{reason}"):
        load_text(smoke(text=name).corpus)


@pytest.mark.parametrize("name", ["bbc-news", "synthetic", "bbc-news+sae-probes"])
@pytest.mark.parametrize(
    "field", [{"text_field": "body"}, {"label_field": "topic"}, {"text_revision": "main"}, {"text_layout": "lines"}]
)
def test_fields_without_effect_on_embedded_text_are_refused(name, field):
    (column, value), *_ = field.items()
    with pytest.raises(TextError, match=f"{column} = '{value}': '{re.escape(name)}' is embedded"):
        load_text(smoke(text=name, **field).corpus)


def test_synthetic_text_is_fixed_topical_and_holds_markup():
    found = load_text(smoke().corpus)
    assert found == load_text(smoke().corpus)
    assert (len(found.texts), len(set(found.labels))) == (400, 4)
    assert all(40 <= len(document.split()) <= 80 for document in found.texts)
    assert {"<", "&", ">"} <= set("".join(found.texts))
    pairs = list(zip(found.texts, found.labels, strict=True))
    own = [{word for text, at in pairs if at == label for word in text.split()} for label in set(found.labels)]
    shared = set.intersection(*own)
    assert all(len(words - shared) > 20 for words in own)


def test_synthetic_words_are_zipf_distributed():
    words = [word for document in synthetic().texts for word in document.rstrip(".").split() if word.isalpha()]
    counts = sorted((words.count(word) for word in set(words)), reverse=True)
    # half of the words come from 80 shared ones with weights 1/rank: the first is 1/H(80) = 20 % of that half
    assert counts[0] / len(words) == pytest.approx(0.5 / sum(1 / rank for rank in range(1, 81)), rel=0.1)


def test_fingerprint_sees_text_boundaries_and_labels(tmp_path):
    paths = [
        parquet(tmp_path / f"{i}.parquet", text=texts.split(), t=labels.split())
        for i, (texts, labels) in enumerate([("ab c d", "x x y"), ("a bc d", "x x y"), ("ab c d", "x y y")])
    ]
    found = [load_text(smoke(text=str(path), label_field="t").corpus).fingerprint for path in paths]
    unlabelled = load_text(smoke(text=str(paths[0])).corpus).fingerprint
    assert len({*found, unlabelled}) == 4
    assert all(len(value) == 16 for value in found)


# --- the split ---


@pytest.mark.parametrize("n_documents", [3, 4, 5, 10, 101])
@pytest.mark.parametrize("fractions", [(0.1, 0.05), (0.49, 0.49), (0.001, 0.49)])
def test_split_is_a_partition_into_non_empty_parts(n_documents, fractions):
    config = smoke(heldout_fraction=fractions[0], validation_fraction=fractions[1])
    split = split_documents(range(n_documents), config.corpus)
    assert sorted(split.train + split.validation + split.heldout) == list(range(n_documents))
    assert all(split)


def test_split_has_the_wanted_sizes_whatever_the_seed():
    split = split_documents(range(200), smoke(heldout_fraction=0.1, validation_fraction=0.05).corpus)
    assert [len(part) for part in split] == [170, 10, 20]
    assert split == split_documents(range(200), smoke(heldout_fraction=0.1, validation_fraction=0.05, seed=7).corpus)


def test_split_is_shuffled_so_that_the_first_documents_are_a_fair_sample():
    heldout = split_documents(range(1000), smoke().corpus).heldout
    assert any(second < first for first, second in pairwise(heldout))
    assert 350 < sum(heldout[:50]) / 50 < 650


@pytest.mark.parametrize("fractions", [(0.1, 0.05), (0.49, 0.49), (0.001, 0.3)])
@given(st.lists(st.integers(0, 30), min_size=3, max_size=120))
def test_groups_stay_together_and_each_part_has_one(fractions, groups):
    assume(len(set(groups)) >= 3)
    parts = split_documents(groups, config_of(fractions))
    assert sorted(parts.train + parts.validation + parts.heldout) == list(range(len(groups)))
    owners = [{groups[i] for i in part} for part in parts]
    assert all(owners)
    assert sum(len(owner) for owner in owners) == len(set(groups))


def config_of(fractions):
    return smoke(heldout_fraction=fractions[0], validation_fraction=fractions[1]).corpus


def test_sizes_are_as_near_to_the_fractions_as_groups_allow():
    # 300 documents, 100 of them in pairs and one group of 50: whole groups give the fractions exactly
    groups = [*range(150), *(1000 + i // 2 for i in range(100)), *[2000] * 50]
    assert [len(part) for part in split_documents(groups, config_of((0.1, 0.05)))] == [255, 15, 30]
    # groups of 7 of 210: 21 wanted are three groups; 10 (a half rounds to even) are one group, which is nearer than two
    assert [len(part) for part in split_documents([i // 7 for i in range(210)], config_of((0.1, 0.05)))] == [182, 7, 21]
    # groups of 4 of 60: 6 wanted are one group; of 3 wanted, four are nearer than none
    assert [len(part) for part in split_documents([i // 4 for i in range(60)], config_of((0.1, 0.05)))] == [52, 4, 4]
    # three groups: each part has one, and training the largest
    assert [len(part) for part in split_documents([0] * 90 + [1] * 6 + [2] * 4, config_of((0.1, 0.05)))] == [90, 4, 6]


def test_groups_of_one_are_split_as_single_documents():
    shuffled_groups = [documents * 7 % 101 for documents in range(101)]
    assert split_documents(shuffled_groups, smoke().corpus) == split_documents(range(101), smoke().corpus)


def test_copies_of_two_documents_cannot_be_split():
    with pytest.raises(TextError, match=r"its 5 documents are copies of 2, .*near_copies to false"):
        split_documents([0, 1, 0, 1, 1], smoke().corpus)


def test_too_few_documents_to_split():
    with pytest.raises(TextError, match=r"text = .*2 documents are too few"):
        split_documents(range(2), smoke().corpus)


def rows_of(*texts):
    return "\n".join(json.dumps({"text": text}) for text in texts)


def test_a_folder_is_read_anew_whatever_the_times_of_its_files(tmp_path):
    path = tmp_path / "texts" / "a.jsonl"
    path.parent.mkdir()
    for found in (("one", "two", "three"), ("six", "ten", "seven")):
        path.write_text(rows_of(*found))
        os.utime(path, (1e9, 1e9))
        assert list(load_text(smoke(text=str(path.parent)).corpus).texts) == list(found)


ROWS = '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n'


@pytest.mark.parametrize(
    "names",
    [
        ("a.jsonl", "b.jsonl"),
        ("train-0.jsonl", "train-1.jsonl"),
        ("train/a.jsonl", "train/b.jsonl"),
        ("a.jsonl", "b.jsonl", ".hidden.jsonl", "__old/c.jsonl"),
    ],
)
def test_a_folder_is_read_whole_where_no_name_hides_a_file(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROWS.replace("one", name))
    assert len(load_text(smoke(text=str(tmp_path)).corpus).texts) == 6


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"a.txt": "one\ntwo\nthree", "b.txt": "four"}, "holds .txt files, of which every line would be a document"),
        ({"a.jsonl": rows_of("one"), "b.csv": "text\ntwo\n"}, r"holds .csv and .jsonl files, of which one kind"),
        ({"a.csv": "text,label\none,01\n"}, "holds .csv files, in which 01 would become 1"),
        ({"train.jsonl": ROWS, "more.jsonl": ROWS}, r"^text = '[^']*': 1 of its files, such as 'more.jsonl', would"),
        ({"a_train_b.jsonl": ROWS, "c.jsonl": ROWS, "d.jsonl": ROWS}, "2 of its files, such as 'c.jsonl', would not"),
        ({"train/a.jsonl": ROWS, "other/b.jsonl": ROWS}, "such as 'other/b.jsonl', would not be read"),
        ({"train.jsonl": ROWS, "old.jsonl.gz": ROWS}, "holds .jsonl and .jsonl.gz files"),
    ],
)
def test_a_folder_of_which_something_else_would_be_read_is_refused(tmp_path, files, error):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(TextError, match=error):
        load_text(smoke(text=str(tmp_path)).corpus)


def test_splits_that_are_not_read_are_told(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows_of("one", "two", "three"))
    (note,) = load_text(smoke(text=str(tmp_path)).corpus).notes
    assert note.endswith("its split train is read, not test (3 rows)")
