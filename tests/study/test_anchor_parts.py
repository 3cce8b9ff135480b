"""Copies between the parts of the documents that seeds have their own anchors from, and what they add to agreement."""

import random

import numpy as np
import pytest

from archsae_study.engine.study import Study
from archsae_study.experiments import anchor_parts
from archsae_study.settings.config import configure

COPIES = 12


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """60 documents, of which some are printed twice with a change at the end."""
    folder, generator = tmp_path_factory.mktemp("parts"), random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    texts = [" ".join(generator.choices(words, k=60)) for _ in range(60)]
    texts += [f"{text} and more" for text in texts[:COPIES]]
    generator.shuffle(texts)
    (folder / "text.txt").write_text("\n\n".join(texts))
    given = {"preset": "smoke", "text": str(folder / "text.txt"), "n_anchors": 16, "n_features": 32, "anchor_folds": 3}
    return Study(configure(given), folder / "runs")


def documents_of(study):
    train = study.train_activations
    return np.unique(np.asarray(train.document)[train.kept])


def test_parts_are_those_of_the_anchors_and_copies_are_those_in_another_one(study):
    part, copied = anchor_parts.parts_of_documents(study)
    texts = [study.corpus.texts[i].removesuffix(" and more") for i in documents_of(study)]
    twins = [[j for j, other in enumerate(texts) if other == text and j != i] for i, text in enumerate(texts)]
    assert copied.tolist() == [any(part[j] != part[i] for j in twin) for i, twin in enumerate(twins)]
    assert 0 < int(copied.sum()) < len(texts)
    for fold in range(study.config.anchors.anchor_folds):
        own = study.train_activations.document[study._anchor_rows(fold)]
        assert set(own.tolist()) <= set(documents_of(study)[(part == fold).numpy()].tolist())


def test_all_fits_are_on_equally_many_activations_and_half_of_them_without_copies(study, monkeypatch):
    fitted, fit = [], anchor_parts._fit

    def noted(own, rows, count, seed):
        fitted.append((rows, count))
        return fit(own, rows, count, seed)

    monkeypatch.setattr(anchor_parts, "_fit", noted)
    found = anchor_parts.build(study)
    assert [one.frame for one in found.frames] == ["centred", "raw"]
    assert len(fitted) == anchor_parts.FITS * 2
    assert {count for _, count in fitted} == {found.frames[0].activations}
    part, copied = anchor_parts.parts_of_documents(study)
    numbers = documents_of(study)
    for place, (rows, _) in enumerate(fitted):
        kept = (part == place % 2) & ~(copied & (place % 4 > 1))
        assert set(study.train_activations.document[rows].tolist()) == set(numbers[kept.numpy()].tolist())
    assert all(one.every.raw > one.every.chance for one in found.frames)
    assert (found.parts, found.documents, found.copied) == (3, len(numbers), int(copied.sum()))


@pytest.mark.parametrize("changes", [{"anchor_folds": 1}, {"n_anchors": 50_000}])
def test_where_nothing_can_be_compared_copies_are_counted_all_the_same(study, changes):
    found = anchor_parts.build(study.variant(**changes))
    assert found.frames == []
    assert found.copied == (0 if "anchor_folds" in changes else int(anchor_parts.parts_of_documents(study)[1].sum()))
