"""The sweep over radii: which radii, from which anchors, and what becomes of a run that diverges."""

import pytest

from archsae_core.config import FRAMES
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged
from archsae_core.storage import read_json
from archsae_study.engine.plan import made
from archsae_study.engine.study import Study
from archsae_study.engine.typed import from_json
from archsae_study.experiments import ablation
from archsae_study.experiments.checks import Flag
from archsae_study.experiments.stability import headline_matrix
from archsae_study.protocol.arms import ARMS
from archsae_study.report import Report
from archsae_study.settings.config import configure

SMOKE = {"preset": "smoke", "ablation_steps": 5, "deltas": "0.5"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure(SMOKE), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def failing(study, monkeypatch):
    """Lets the first seed of every archetypal run of the sweep diverge, on a study in which nothing is trained."""
    real = study.run_folder

    def run_folder(run):
        if run.seed == 0 and ARMS[run.arm].dictionary == "archetypal":
            raise TrainingDiverged("loss is nan at step 3: lower lr")
        return real(run)

    monkeypatch.setattr(study, "run_folder", run_folder)
    return study


def test_before_there_are_anchors_only_the_radii_asked_for_are_known(tmp_path):
    fresh = Study(configure(SMOKE), tmp_path)
    assert [ablation.radii(fresh, frame) for frame in FRAMES] == [[0.5], [0.5]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", FRAMES)
def test_the_paper_s_radius_is_1_percent_of_the_median_norm_of_the_frame_s_anchors(study, frame):
    anchors = study.variant(frame=frame).anchors()
    expected = 0.01 * float(anchors.norm(dim=1).median())
    first, second = ablation.radii(study, frame)
    assert (first, second) == (pytest.approx(expected, rel=0.01), 0.5)
    summary = read_json(study.variant(frame=frame).anchor_folder() / "summary.json")
    assert summary["median_norm"] == pytest.approx(100 * expected, rel=1e-4)


def test_the_table_that_is_made_has_the_paper_s_radius_in_both_frames(study):
    """Making it fits the anchors first, since its key and its runs depend on them."""
    folder = made(study, ablation.TABLE)
    result = from_json(read_json(folder / "table.json"), ablation.AblationResult)
    for frame in FRAMES:
        sweep = result.sweep(frame)
        assert [row.delta for row in sweep.rows] == ablation.radii(study, frame)
        assert sweep.rows[0].relative == pytest.approx(0.01, rel=0.01)
        assert [row.relative for row in sweep.references] == [None, None]
        assert [ARMS[row.arm].dictionary for row in sweep.references] == ["free", "frozen"]
        assert {ARMS[row.arm].own for row in sweep.rows} == {True}
        assert len(sweep.rows[0].seeds) == 2


def test_stability_is_between_the_ends_of_a_radius_s_own_runs(study):
    for frame in FRAMES:
        (case,) = [case for case in ablation._cases(study, frame) if dict(case[0].changes).get("delta") == 0.5]
        atoms = [snapshots(study.run_folder(run), 5)[5] for run in case]
        row = next(row for row in ablation.build(study).sweep(frame).rows if row.delta == 0.5)
        assert row.stability.estimate == pytest.approx(headline_matrix(atoms)[0][1])
        assert row.mean("r2") == pytest.approx(sum(study.scores(run).quality.r2 for run in case) / 2)
        assert row.stability.low is None  # two seeds give no interval


def test_a_diverged_run_is_a_flagged_row_and_the_others_are_kept(failing):
    for sweep in ablation.build(failing).sweeps:
        for row in sweep.rows:
            lost, kept = row.seeds
            assert lost.flags == [Flag("failed", "loss is nan at step 3: lower lr")]
            assert (lost.r2, lost.cosine_with_start, kept.r2 is None) == (None, None, False)
            assert row.stability is None  # one seed is no pair
            assert row.mean("r2") == kept.r2
        assert sweep.best is None
        assert sweep.frontier == []
        assert [len(row.seeds) for row in sweep.references] == [2, 2]
        assert all(row.stability for row in sweep.references)


def test_training_that_really_diverges_ends_in_the_table(tmp_path):
    config = configure(SMOKE | {"lr": 1e30})
    report = Report(config, tmp_path)
    result = report.table("ablation")
    free = result.sweep("centred").references[0]
    assert {flag.kind for flag in free.flags} == {"failed"}
    assert free.mean("r2") is None
    assert free.stability is None
