"""Short forms of `make soak`: each kind of fault once, at its smallest size."""

import pytest

from soak import corruption, disk, displaced, interrupts, kills, memory, together
from soak.processes import undisturbed

pytestmark = pytest.mark.long

MIB = 2**20


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """A few tables of the smoke preset, computed in one process that nothing happens to."""
    return undisturbed(tmp_path_factory.mktemp("peace"), "few")


def survived(found):
    rows, problems = found
    assert problems == []
    return rows


def mounting(found):
    """What a fault of a disk left; passed over where no disk can be mounted."""
    try:
        return survived(found())
    except disk.CannotMount as error:
        pytest.skip(str(error))


def test_killed_runs_end_as_uninterrupted_ones_and_redo_at_most_a_checkpoint(peace, tmp_path):
    (row,) = survived(kills.run(tmp_path, peace, "few", 3, seed=1))
    assert row["kills survived"] == 3


def test_reports_a_kernel_and_a_cluster_in_one_folder_do_the_work_of_one(peace, tmp_path):
    survived(together.run(tmp_path, peace, "few"))


def test_a_kernel_interrupted_in_each_stage_ends_as_an_uninterrupted_one(peace, tmp_path):
    (row,) = survived(interrupts.run(tmp_path, peace, "few"))
    assert row["stages"] == 6
    assert row["interrupted"] >= 3  # where the machine is busy, a stage of milliseconds ends before it is hit


def test_a_clock_that_jumps_changes_nothing(peace, tmp_path):
    survived(displaced.clock(tmp_path, peace, "few"))


def test_a_copied_folder_of_runs_is_used_as_it_is(peace, tmp_path):
    (row,) = survived(displaced.copied(tmp_path, peace, "few"))
    assert row["files copied"] > len(peace.outcome)


def test_every_damage_is_refused_by_name_or_repaired(peace, tmp_path):
    rows = survived(corruption.run(tmp_path, peace, every=False))
    kinds = {"activations", "anchors", "normalizer", "runs", "scores", "tables"}
    assert {f"store/{kind}" for kind in kinds} <= {row["kind"] for row in rows}
    assert all(row["damaged"] == row["refused by name"] == row["made again on --repair"] > 0 for row in rows)


def test_a_disk_too_small_is_refused_and_one_that_fills_is_named_and_the_run_continues(peace, tmp_path):
    rows = mounting(lambda: disk.full(tmp_path, peace, "few", (0.05, 0.6)))
    assert [row["clear error"] for row in rows] == [True, True, True, True, "–"]


def test_a_disk_that_fills_while_publishing_leaves_the_committed_report_whole(smoke_report, tmp_path):
    rows = mounting(lambda: disk.publishing(tmp_path, smoke_report))
    assert [row["files changed"] for row in rows[:-1]] == [0, 0, 0]


def test_a_read_only_cache_is_used_where_complete_and_named_where_not(tmp_path):
    mounting(lambda: disk.read_only(tmp_path))


def test_activations_several_times_larger_than_memory(tmp_path):
    (row,) = survived(memory.run(tmp_path, allowed=256 * MIB, tokens=260_000, width=1024))
    assert float(row["ratio"]) >= 3
