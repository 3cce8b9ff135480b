"""`clean` deletes what reports made, says so, and touches nothing else."""

import os
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from archsae_core.storage import BUILD, MANIFEST, MARKER, Store, canonical_hash, mark, write_atomically, write_json
from archsae_study.__main__ import main
from archsae_study.commands import cleaning
from archsae_study.commands.cleaning import clean
from archsae_study.engine.made import changed_files, made_files, note_made
from archsae_study.explorer.page import asset, script
from archsae_study.report import identity, run_folder
from archsae_study.settings.config import ConfigError, configure


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def fill(work):
    write_atomically(work / "sae.safetensors", lambda path: path.write_bytes(b"x" * 1500))


@pytest.fixture
def runs(tmp_path):
    """A folder of runs as a report leaves it: a sealed artefact, one being built, a run, a log."""
    root = tmp_path / "runs"
    store = Store(root / "store", marked=True)
    store.artifact("anchors", {"a": 1}, fill)
    store.begin("runs", {"b": 1}, fill)
    folder = run_folder(configure({"preset": "smoke"}), root)
    mark(folder, "run")
    write_json(folder / "results" / "features.json", {})
    (folder / "figures").mkdir()
    (folder / "explorer" / "data" / "features").mkdir(parents=True)
    (folder / "explorer" / "assets").mkdir()
    made = ("07_features.ipynb", "figures/a.png", "explorer/index.html", "explorer/assets/page.js",
            "explorer/data/features/0.js")  # fmt: skip
    for name in (".lock", *made):
        (folder / name).touch()
    write_json(folder / "config.json", identity(configure({"preset": "smoke"})))
    write_json(folder / "timing.json", [{"kind": "runs", "name": "a", "promised": 1.0, "taken": 2.0}])
    write_json(folder / "06_delta_ablation.partial.ipynb", {"metadata": {"papermill": {}}, "cells": []})
    left = folder / ".explorer.partial"
    (left / "data" / "features" / "ra-own").mkdir(parents=True)
    (left / "index.html").write_text(asset("index.html")[:100])
    (left / "data" / "features" / "ra-own" / "0.js").write_text(script("features/ra-own/0", [])[:-9])
    (folder / "figures" / ".a.png.123.tmp").touch()
    note_made(folder, folder / "results" / "features.json", *(folder / name for name in made))
    (root / "scheduler.log").write_text("2026-01-01 00:00:00 local:2: 3 runs for 2 workers\n")
    return root


def test_everything_that_a_report_made_goes_and_the_sum_is_said(runs, capsys):
    files = [path for path in runs.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    assert main(["clean", "--runs", str(runs)]) == 0
    assert everything(runs) == set()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"deleted {len(files)} files, {total / 1000:.1f} kB in all"


def test_a_dry_run_says_the_same_and_deletes_nothing(runs):
    before = everything(runs)
    planned = clean(runs, dry_run=True)
    assert everything(runs) == before
    done = clean(runs)
    assert {path: sorted(sizes) for path, sizes in planned.deleted.items() if path != runs / "store"} == {
        path: sorted(sizes) for path, sizes in done.deleted.items() if path != runs / "store"
    }


def test_a_folder_of_other_peoples_files_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    root = tmp_path / "data"
    (root / "store" / "runs").mkdir(parents=True)  # the names alone prove nothing
    (root / "store" / "runs" / "thesis.tex").write_text("years of work")
    (root / "smoke-12345678").mkdir()
    (root / "smoke-12345678" / "config.json").write_text("{}")
    (root / "photo.png").touch()
    before = everything(root)
    monkeypatch.setenv("ARCHSAE_RUNS", str(root))
    assert main(["clean"]) == 0
    assert everything(root) == before
    said = capsys.readouterr().out
    assert all(f"kept {root / name}: not made by a report" in said for name in ("store", "smoke-12345678", "photo.png"))


@pytest.mark.parametrize("name", [
    "notes.md", "store/mine.csv", "store/runs/mine.csv", "smoke-*/own.ipynb", "smoke-*/results/own.csv",
    "store/anchors/*[0-9a-f]/own.txt", "photos/a.png", "smoke-*/figures/mine.png", "smoke-*/results/mine.json",
    "smoke-*/05_mine.ipynb", "smoke-*/explorer/assets/mine.js", "smoke-*/explorer/data/features/mine.js",
    "smoke-*/standard_sae.safetensors", "store/runs/*.partial/own.txt", "smoke-*/.explorer.partial/mine.txt",
    "smoke-*/.explorer.partial/index.html", "smoke-*/.explorer.partial/data/features/ra-own/1.js", "smoke-*/.x.12.tmp",
    "smoke-*/figures/.x.12.tmp", "smoke-*/config.json", "smoke-*/timing.json", "smoke-*/.lock",
    "smoke-*/06_delta_ablation.partial.ipynb", "store/anchors/0123456789abcdef.lock",
    "store/anchors/0123456789abcdef.partial/scores.json", "store/runs/*.partial/sae.safetensors",
])  # fmt: skip
def test_a_file_of_someone_elses_among_ours_is_kept_and_named(runs, name, capsys):
    folder, _, file = name.rpartition("/")
    place = next(path for path in runs.glob(folder)) if "*" in folder else runs / folder
    place.mkdir(exist_ok=True)
    (place / file).write_text("mine")
    assert main(["clean", "--runs", str(runs)]) == 0
    assert (place / file).read_text() == "mine"
    assert {path for path in runs.rglob("*") if path.is_file() and path.name != MARKER} == {place / file}
    said = capsys.readouterr().out
    if "0123456789abcdef.partial" in name:
        assert f"kept {place}: {cleaning.UNPROVEN}" in said
    else:
        assert f"kept {runs / 'photos' if 'photos' in name else place / file}: not made by a report" in said


@pytest.mark.parametrize("name", ["figures/a.png", "results/features.json", "07_features.ipynb", "explorer/index.html"])
def test_a_file_that_someone_changed_since_is_kept(runs, name):
    folder = next(runs.glob("smoke-*"))
    (folder / name).write_text("drawn anew")
    kept = {path: why for path, why in clean(runs).kept if why != cleaning.TELLING}
    assert kept == {folder / name: cleaning.FOREIGN}
    assert (folder / name).read_text() == "drawn anew"


def test_the_record_of_a_file_that_someone_changed_stays_with_it(runs):
    """So that the next report still knows that it would replace a person's work."""
    (folder,) = runs.glob("smoke-*")
    changed = min(made_files(folder))
    changed.write_text("mine")
    clean(runs)
    assert changed.read_text() == "mine"
    assert changed in changed_files(folder)
    changed.unlink()
    clean(runs)
    assert not folder.exists()


def test_a_log_of_someone_elses_is_kept(runs):
    (runs / "scheduler.log").write_text("my notes\n")
    assert clean(runs).kept == [(runs / "scheduler.log", cleaning.FOREIGN)]


@pytest.mark.parametrize("damage", ["missing", "altered", "another's"])
def test_an_artefact_without_a_sound_manifest_is_kept_and_named(runs, damage):
    artefact = runs / "store" / "anchors" / canonical_hash({"a": 1})
    for name in ("anchor_points.safetensors", "summary.json", ".summary.json.123.tmp", "notes.md", "mine.json"):
        (artefact / name).touch()
    manifest = artefact / MANIFEST
    manifest.unlink()
    if damage != "missing":
        manifest.write_text("{" if damage == "altered" else '{"recipe": {"b": 2}, "files": {}}')
    before = everything(artefact)
    assert clean(runs).kept == [(artefact, cleaning.UNPROVEN)]
    assert everything(artefact) == before


def test_every_file_of_a_real_report_is_known_while_it_is_built(smoke_report, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(smoke_report.parent, root)
    store = root / "store"
    for artefact in [path for path in store.glob("*/*") if path.is_dir()]:
        (artefact / MANIFEST).unlink()
        mark(artefact.rename(f"{artefact}.partial"), BUILD)
    assert [(path, why) for path, why in clean(root).kept if store in path.parents] == []
    assert not (root / smoke_report.name).exists()


def test_folders_from_before_the_marker_are_known_by_their_hashes(runs):
    for marker in runs.rglob(MARKER):
        marker.unlink()
    config = configure({"preset": "smoke"})
    write_json(run_folder(config, runs) / "config.json", identity(config))
    assert clean(runs).kept == []
    assert everything(runs) == set()


@pytest.mark.parametrize("content", [b"", b"archsae", b"archsae store another\n", b"\xff\x00"])
def test_a_damaged_marker_proves_nothing_and_the_next_report_mends_it(runs, content):
    folder = run_folder(configure({"preset": "smoke"}), runs)
    for place in (runs / "store", folder):
        (place / MARKER).write_bytes(content)
    shutil.rmtree(runs / "store" / "anchors")  # whose manifest would prove the store
    (folder / "config.json").unlink()  # which would prove the run
    assert [path for path, _ in clean(runs).kept] == [folder, runs / "store"]
    assert (folder / "07_features.ipynb").exists()
    Store(runs / "store", marked=True).artifact("anchors", {"a": 1}, fill)
    mark(folder, "run")
    assert clean(runs).kept == []
    assert everything(runs) == set()


@pytest.mark.parametrize("damage", ["no config", "altered"])
def test_a_run_folder_without_marker_or_matching_hash_is_kept(runs, damage):
    config = configure({"preset": "smoke"})
    folder = run_folder(config, runs)
    (folder / MARKER).unlink()
    (folder / "config.json").unlink()
    if damage == "altered":
        write_json(folder / "config.json", identity(config) | {"delta": 3})
    assert [path for path, _ in clean(runs).kept] == [folder]
    assert (folder / "07_features.ipynb").exists()


def test_what_was_renamed_or_copied_by_hand_is_kept(runs):
    folder = next(runs.glob("smoke-*"))
    folder.rename(runs / "smoke-00000000")
    assert clean(runs).kept == [(runs / "smoke-00000000", cleaning.FOREIGN)]


@pytest.mark.parametrize("place", ["store", "store/anchors", "store/anchors/{hash}", "smoke-00000000", "other"])
def test_links_are_neither_followed_nor_deleted(runs, tmp_path, place):
    outside = tmp_path / "outside"
    (outside / "data").mkdir(parents=True)
    (outside / "data" / "mine.txt").write_text("mine")
    link = runs / place.format(hash=canonical_hash({"a": 1}))
    if link.exists():
        link.rename(tmp_path / "moved")
    link.symlink_to(outside)
    found = clean(runs)
    assert link.is_symlink()
    assert (link, cleaning.LINK) in found.kept
    assert (outside / "data" / "mine.txt").read_text() == "mine"


def test_a_link_inside_an_artefact_or_a_run_leads_nowhere(runs, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").touch()
    run, artefact = next(runs.glob("smoke-*")), runs / "store" / "anchors" / canonical_hash({"a": 1})
    links = [run / "standard_sae.safetensors", artefact / "more"]
    links[0].symlink_to(tmp_path / "mine.txt")
    links[1].symlink_to(tmp_path / "folder")
    clean(runs)
    assert all(link.is_symlink() for link in links)
    assert everything(tmp_path / "folder") == {"a.png"}


def test_what_a_process_works_on_is_kept(runs):
    run, artefact = next(runs.glob("smoke-*")), runs / "store" / "anchors" / canonical_hash({"a": 1})
    with FileLock(run / ".lock"):
        before, kept = everything(runs / "store"), dict(clean(runs).kept)
        assert kept[run] == "a report runs in it"
        assert kept[runs / "store"] == f"a report runs in {run}, and would make all of it again"
        assert everything(runs / "store") == before
    with FileLock(f"{artefact}.lock"):
        assert dict(clean(runs).kept)[artefact] == "a process works on it"
        assert (artefact / "sae.safetensors").exists()
    assert clean(runs).kept == []
    assert everything(runs) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete anywhere")
def test_what_cannot_be_deleted_is_named_and_the_exit_status_says_so(runs, capsys):
    folder = next(runs.glob("smoke-*"))
    folder.chmod(0o500)
    try:
        assert main(["clean", "--runs", str(runs)]) == 1
    finally:
        folder.chmod(0o700)
    assert f"could not delete {folder / 'config.json'}: Permission denied" in capsys.readouterr().out


def test_no_place_for_runs(tmp_path, monkeypatch):
    home, project = tmp_path / "people" / "me", tmp_path / "code"
    for folder in (home, project / "runs"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(cleaning, "PROJECT", project)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(project / "runs")
    for place, reason in (
        (home, "is the home folder"), (home.parent, "holds the home folder"), (project, "is the project's folder"),
        (tmp_path, "holds the"), ("/", "holds the"), ("/proc", "a mount point"), (tmp_path / "file", "not a folder"),
        (tmp_path / "link", f"a symbolic link.*{project / 'runs'}"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"runs = .*{reason}"):
            clean(type(tmp_path)(place))
    assert clean(project / "runs").kept == []


def test_nothing_to_clean_is_said(tmp_path, capsys):
    assert main(["clean", "--runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"there is no folder {tmp_path / 'none'}\n"


def test_the_folder_is_taken_from_where_the_command_is_called(runs):
    command = [sys.executable, "-m", "archsae_study", "clean", "--runs", "runs"]
    subprocess.run(command, cwd=runs.parent, check=True, capture_output=True)
    assert everything(runs) == set()
