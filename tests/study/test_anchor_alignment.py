"""Where atoms end: cosines with their start and with anchors, by hand and against the parts of a study."""

import pytest
import torch
import torch.nn.functional as F

from archsae_core.metrics.matching import centred_cosines, directions
from archsae_core.models.snapshots import snapshots
from archsae_study.engine.study import Study
from archsae_study.experiments import anchor_alignment, generality
from archsae_study.settings.config import configure

SMOKE = {"preset": "smoke", "steps": 10, "ablation_steps": 5, "n_seeds": 2, "anchor_folds": 2}
RAW = "raw-topk-kmeans-own,raw-ra-own"


def test_cosines_are_of_unit_rows_less_their_mean():
    atoms = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    anchors = torch.tensor([[0.0, 5.0], [3.0, 0.0]])
    torch.testing.assert_close(centred_cosines(atoms, anchors), torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))


def test_cosines_do_not_see_lengths_nor_a_direction_that_all_share(seeded):
    atoms, anchors = torch.randn(6, 9), torch.randn(5, 9)
    lengths = torch.rand(6, 1) + 0.5
    expected = centred_cosines(atoms, anchors)
    torch.testing.assert_close(centred_cosines(lengths * atoms, anchors), expected)
    unit = F.normalize(atoms.double(), dim=1)
    rows = unit - unit.mean(dim=0)
    torch.testing.assert_close(directions(atoms, centred=True), F.normalize(rows, dim=1).float())
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(9).double(), atol=1e-12, rtol=0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    study = Study(configure(SMOKE | {"arms": RAW}), tmp_path_factory.mktemp("runs"))
    return study, anchor_alignment.build(study)


def test_its_runs_are_trained_for_other_tables_as_well(found):
    study, _ = found
    others = {study.run_key(run) for run in generality.runs(study)}
    spread = [run for run in anchor_alignment.runs(study) if run.changes]
    assert len(spread) == 2
    assert {study.run_key(run) for run in spread} <= others


def test_the_arms_are_those_of_g3_and_the_spread_one(found):
    _, result = found
    assert [(arm.arm, arm.smoothing) for arm in result.arms] == [
        ("raw-ra-own", None),
        ("raw-topk-kmeans-own", None),
        ("raw-ra-own", generality.SPREAD),
    ]


def test_cosines_of_a_study_against_its_own_parts(found):
    study, result = found
    for arm in result.arms:
        assert arm.seeds == [0, 1]
        for seed in arm.seeds:
            (run,) = [
                one
                for one in anchor_alignment.runs(study)
                if (one.arm, one.seed, dict(one.changes).get("smoothing")) == (arm.arm, seed, arm.smoothing)
            ]
            kept, own = snapshots(study.run_folder(run), run.steps), study.of(run)
            start, end = kept[0], kept[run.steps]
            assert arm.cosine_with_start[seed] == pytest.approx(F.cosine_similarity(start, end, dim=1).mean().item())
            anchors = own.anchors(own.fold(run))
            unit = F.normalize(anchors.double(), dim=1)
            assert arm.nearest_anchor[seed] >= arm.own_anchor[seed] - 1e-12
            # one after another, without the tables of the module
            shared, mine = unit.mean(dim=0), F.normalize(end.double(), dim=1)
            nearest = [
                max(F.cosine_similarity(atom - mine.mean(dim=0), anchor - shared, dim=0) for anchor in unit)
                for atom in mine
            ]
            assert arm.nearest_anchor[seed] == pytest.approx(float(torch.stack(nearest).mean()))


def test_a_start_at_the_anchors_is_at_them(found):
    _, result = found
    (free,) = [arm for arm in result.arms if arm.arm == "raw-topk-kmeans-own"]
    assert free.own_anchor_before == pytest.approx([1.0, 1.0], abs=1e-4)  # kept in bfloat16


def test_without_other_settings_there_is_no_spread_arm(tmp_path):
    study = Study(configure(SMOKE | {"arms": RAW, "other_settings": False}), tmp_path)
    assert not [run for run in anchor_alignment.runs(study) if run.changes]
    assert anchor_alignment.AlignmentResult([]).arms == []
