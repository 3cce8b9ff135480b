"""Tables in the layout of the wheel `sae-probes`: long rows as documents, and binary tasks."""

import io
import random
import zipfile

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from archsae_core.data import assets
from archsae_core.data.assets import EMBEDDED_TEXTS, probe_tables, text_folder
from archsae_core.data.probe_tasks import load_probe_tasks, made_up_tasks, own_split
from archsae_core.data.sae_probes import MIN_WORDS, OTHER, read_table


def csv_zst(frame):
    """A data frame as pandas writes it with an index-free header, compressed as in the wheel."""
    return pyarrow.compress(frame.to_csv(index=False).encode(), codec="zstd", asbytes=True)


def words(n, seed):
    generator = random.Random(seed)
    return " ".join(
        f"{generator.choice('bdgklmnr')}{generator.choice('aeiou')}{generator.randrange(10**6)}" for _ in range(n)
    )


def frame(prompts, targets):
    return pandas.DataFrame({"prompt": prompts, "prompt_len": [len(prompt) for prompt in prompts], "target": targets})


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An empty cache, and a function that puts a wheel with these tables into it."""
    monkeypatch.setenv("ARCHSAE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    asset = EMBEDDED_TEXTS["sae-probes"]

    def put(tables):
        path = tmp_path / "wheels" / asset.filename
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, table in tables.items():
                folder = "sae_probes/data" if name.startswith("probing") else "sae_probes/data/cleaned_data"
                archive.writestr(f"{folder}/{name}.csv.zst", csv_zst(table))
            archive.writestr("sae_probes/__init__.py", "raise SystemExit('code of the wheel was run')")
        changed = dict(EMBEDDED_TEXTS)
        changed["sae-probes"] = asset.__class__(**{**vars(asset), "sha256": assets.file_sha256(path)})
        monkeypatch.setattr(assets, "EMBEDDED_TEXTS", changed)

    return put


def test_a_table_is_read_as_pandas_reads_it(tmp_path):
    prompts = ['a "quoted", cell', "two\nlines\r\nand a third", " spaces ", "nan", "été — ☃", "", "x" * 200_000]
    content = frame(prompts, [True, False, True, False, True, False, True])
    (tmp_path / "1_a.csv.zst").write_bytes(csv_zst(content))
    found = read_table(tmp_path / "1_a.csv.zst")
    plain = pandas.read_csv(io.StringIO(content.to_csv(index=False)), keep_default_na=False)
    assert found.prompts == plain["prompt"].tolist()
    assert found.targets.tolist() == plain["target"].tolist()


def test_long_rows_outside_code_become_documents_without_copies(wheel):
    long = [words(MIN_WORDS, seed) for seed in range(8)]
    near = f"{long[1]} asked again"
    wheel(
        {
            "94_ai_gen": frame([long[0], words(MIN_WORDS - 1, 9), long[1].upper()], [0, 1, 0]),
            "9_first": frame([long[1], long[2]], ["x", "y"]),
            "100_news_fake": frame([near, long[0], long[3]], [1, 0, 1]),
            "158_code_C": frame([long[4]], [0]),
            "161_agnews_0": frame([long[5]], [0]),
            "probing_datasets_MASTER": frame([long[6]], [0]),
        }
    )
    table = pyarrow.parquet.read_table(text_folder("sae-probes") / "documents.parquet").to_pydict()
    assert table["text"] == [long[1], long[2], long[0], long[3]]
    essays, news = "essays, partly written by machines", "news, true and fake"
    assert table["source"] == [OTHER, OTHER, essays, news]


def test_split_is_that_of_the_package():
    # made by get_train_test_indices(y, 21, 18) of sae-probes 0.4.2
    train, test = own_split(np.arange(60) % 3 == 0, 21, 18)
    assert train.tolist() == [3, 51, 24, 15, 53, 25, 48, 1, 43, 45, 39, 38, 8, 16, 19, 9, 54, 33, 0, 11, 35]
    assert test.tolist() == [28, 50, 5, 42, 27, 12, 21, 44, 2, 36, 57, 52, 30, 40, 23, 59, 18, 6]


def test_tasks_have_their_own_split_without_test_prompts_that_are_trained_on(wheel):
    prompts = [f"prompt {i} of these" for i in range(300)]
    prompts[150:] = [prompt.upper() + "!" for prompt in prompts[:150]]  # every prompt twice
    targets = ["no" if i % 2 else "yes" for i in range(300)]
    master = pandas.DataFrame(
        {
            "Dataset save name": ["cleaned_data/3_many.csv", "cleaned_data/5_two words.csv"],
            "Data type": ["Multiclass Classification", "Binary Classification"],
        }
    )
    wheel({"3_many": frame(["a"], [1]), "5_two words": frame(prompts, targets), "probing_datasets_MASTER": master})
    (task,) = load_probe_tasks(max_train=120, max_test=40)
    assert (task.name, task.classes) == ("5_two words", ("no", "yes"))
    train, test = own_split(np.array(targets) == "yes", 200, 99)
    assert task.train.texts == tuple(prompts[i] for i in train[:120])
    assert task.train.labels.tolist() == [targets[i] == "yes" for i in train[:120]]
    known = {i % 150 for i in train[:120]}
    clean = [i for i in test if i % 150 not in known]
    assert task.test.texts == tuple(prompts[i] for i in clean[:40])
    assert task.test.labels.tolist() == [targets[i] == "yes" for i in clean[:40]]
    assert task.leaked == test.tolist().index(clean[39]) + 1 - 40 > 0
    (short,) = load_probe_tasks(max_train=120, max_test=99)
    assert (len(short.test.texts), short.leaked) == (len(clean), 99 - len(clean))


def test_tables_are_unpacked_as_they_are_and_nothing_of_the_package_runs(wheel):
    wheel({"5_a": frame(["x"], [0])})
    assert [path.name for path in probe_tables().glob("*.zst")] == ["5_a.csv.zst"]


def test_a_limit_takes_tasks_evenly_spaced(wheel):
    names = [f"{number}_a" for number in range(7)]
    master = pandas.DataFrame(
        {"Dataset save name": [f"cleaned_data/{name}.csv" for name in names], "Data type": "Binary Classification"}
    )
    table = frame([f"prompt {i}" for i in range(200)], [i % 2 for i in range(200)])
    wheel(dict.fromkeys(names, table) | {"probing_datasets_MASTER": master})
    for limit, wanted in ((3, ["0_a", "3_a", "6_a"]), (1, ["0_a"]), (9, names), (None, names)):
        assert [task.name for task in load_probe_tasks(8, 4, limit=limit)] == wanted


def test_made_up_tasks_ask_for_the_topics_of_the_synthetic_text():
    tasks = made_up_tasks(60, 30)
    assert [task.name for task in tasks] == ["about forest", "about market", "about music", "about sea"]
    for task in tasks:
        assert (len(task.train.texts), len(task.test.texts)) == (60, 30)
        assert set(task.train.texts).isdisjoint(task.test.texts)
        assert 0.3 < task.train.labels.mean() < 0.7
    assert len(made_up_tasks(limit=2)) == 2
