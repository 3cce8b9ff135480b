import json
import time
from itertools import pairwise

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from archsae_core.data import corpus
from archsae_core.data.corpus import load_text, split_documents, synthetic
from archsae_core.data.text_files import TextError
from archsae_study.config import configure

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


def test_jsonl_with_labels_and_other_columns(tmp_path):
    rows = [{"body": "one", "topic": "x"}, {"body": "  ", "topic": "y"}, {"body": "two", "topic": 3, "extra": [1]}]
    rows += [{"body": None, "topic": "z"}, {"body": "a\u2028b", "topic": "z"}]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found = text(tmp_path / "a.jsonl", content, text_field="body", label_field="topic")
    assert found == (("one", "two", "a\u2028b"), ("x", "3", "z"))


def test_parquet_with_labels(tmp_path):
    path = parquet(
        tmp_path / "a.parquet", text=["one", None, "two", "three"], topic=["x", "y", "y", "z"], other=[0] * 4
    )
    found = load_text(smoke(text=str(path), label_field="topic").corpus)
    assert (found.texts, found.labels) == (("one", "two", "three"), ("x", "y", "z"))


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
    split = split_documents(n_documents, config.corpus)
    assert sorted(split.train + split.validation + split.heldout) == list(range(n_documents))
    assert all(split)


def test_split_has_the_wanted_sizes_whatever_the_seed():
    split = split_documents(200, smoke(heldout_fraction=0.1, validation_fraction=0.05).corpus)
    assert [len(part) for part in split] == [170, 10, 20]
    assert split == split_documents(200, smoke(heldout_fraction=0.1, validation_fraction=0.05, seed=7).corpus)


def test_split_is_shuffled_so_that_the_first_documents_are_a_fair_sample():
    heldout = split_documents(1000, smoke().corpus).heldout
    assert any(second < first for first, second in pairwise(heldout))
    assert 350 < sum(heldout[:50]) / 50 < 650


def test_too_few_documents_to_split():
    with pytest.raises(TextError, match=r"text = .*2 documents are too few"):
        split_documents(2, smoke().corpus)
