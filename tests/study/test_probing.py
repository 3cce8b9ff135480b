"""Topic probes: text without labels, documents too short for a passage, controls at step 0."""

import json

import pytest
import torch

from archsae_core.data.corpus import Corpus
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments import probing
from archsae_study.experiments.structure import at_step_0
from archsae_study.settings.config import configure


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure({"preset": "smoke", "tokens": 4000}), tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(None, "the text has no topic labels"), (("sport",) * 2, "the text has one topic")],
)
def test_text_without_topics_cannot_be_probed(tmp_path, labels, reason):
    study = Study(configure({"preset": "smoke"}), tmp_path)
    study.__dict__["corpus"] = Corpus(("a", "b"), labels, "0" * 16)
    assert probing.build(study).reason == reason


def test_documents_that_are_too_short_for_a_passage_are_said(tmp_path):
    rows = [{"text": f"word{i} sea{i % 7}", "topic": "ab"[i % 2]} for i in range(80)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = {"text": str(tmp_path / "a.jsonl"), "label_field": "topic"}
    study = Study(configure({"preset": "smoke", **text, "n_anchors": 8}), tmp_path / "runs")
    assert probing.build(study).reason == (
        "no labelled document has 16 consecutive activations, the length of a passage"
    )


def test_probe_data_never_shares_a_document(study):
    train, test = probing.probe_data(study)
    assert not set(train.about.document) & set(test.about.document)
    assert train.about.rows.shape[1] == 16  # half a window of 32


def test_step_0_is_where_training_starts(study):
    run = Run("topk-kmeans-shared", 0, 40)
    sae = at_step_0(study, run)
    directions = torch.nn.functional.normalize(study.anchors(), dim=1)
    assert torch.allclose(sae.atoms().detach(), directions, atol=1e-6)
    scale = sae.W_enc.detach().norm(dim=1)
    assert scale.max() - scale.min() < 1e-5  # calibration has one factor for all
    assert abs(scale[0].item() - 1) > 0.01
