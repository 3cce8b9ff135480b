"""Artefacts: built once, sealed, resumed after a kill, and never used when damaged."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from archsae_core import storage
from archsae_core.storage import (
    REPAIR,
    CorruptArtifact,
    Store,
    canonical_hash,
    noted_files,
    read_json,
    write_atomically,
    write_json,
)

RECIPE = {"a": 1, "b": (2.5, None)}


def build_with(calls):
    def build(work):
        calls.append(1)
        (work / "data.bin").write_bytes(bytes(range(256)))

    return build


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_itself(tmp_path, monkeypatch):
    """Not of a repository in which an environment lies, nor of the one of which a hook is running."""
    commit = storage._commit.__wrapped__
    ours = tmp_path / "ours" / "archsae_core"
    ours.mkdir(parents=True)
    (ours / "storage.py").write_text("")
    git(tmp_path, "init", "-q", "another")
    git(ours, "init", "-q", "..")
    monkeypatch.setattr(storage, "__file__", str(ours / "storage.py"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another" / ".git"))
    assert commit() == "unknown"
    git(ours, "add", ".")
    git(ours, "commit", "-qm", "first")
    assert commit() == git(ours, "rev-parse", "--short=12", "HEAD")
    (ours / "storage.py").write_text("changed")
    assert commit() == git(ours, "rev-parse", "--short=12", "HEAD") + "-dirty"


def test_same_recipe_is_built_once_and_another_again(tmp_path):
    calls = []
    first = Store(tmp_path).artifact("stage", RECIPE, build_with(calls))
    assert Store(tmp_path).artifact("stage", dict(reversed(RECIPE.items())), build_with(calls)) == first
    assert len(calls) == 1
    assert Store(tmp_path).artifact("stage", RECIPE | {"a": 2}, build_with(calls)) != first
    assert len(calls) == 2


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["data.bin", "manifest.json"])
def test_damage_is_found_named_and_not_used(tmp_path, damage, name):
    folder = Store(tmp_path).artifact("stage", RECIPE, build_with([]))
    damage(folder / name)
    with pytest.raises(CorruptArtifact, match=rf"{name}.*delete"):
        Store(tmp_path).artifact("stage", RECIPE, build_with([]))


def test_a_failed_build_leaves_nothing_sealed_and_its_files_for_the_next(tmp_path):
    def fails(work):
        (work / "half").write_text("x")
        raise KeyError

    with pytest.raises(KeyError):
        Store(tmp_path).artifact("stage", RECIPE, fails)
    assert not Store(tmp_path).path("stage", RECIPE).exists()
    folder = Store(tmp_path).artifact("stage", RECIPE, lambda work: (work / "whole").write_text("y"))
    assert {"half", "whole"} <= {path.name for path in folder.iterdir()}


def test_a_killed_build_is_continued(tmp_path):
    script = f"""
        import os, signal
        from archsae_core.storage import Store
        def build(work):
            (work / "part").write_text("kept")
            os.kill(os.getpid(), signal.SIGKILL)
        Store({str(tmp_path)!r}).artifact("stage", {RECIPE!r}, build)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    seen = []
    Store(tmp_path).artifact("stage", RECIPE, lambda work: seen.append((work / "part").read_text()))
    assert seen == ["kept"]


def test_two_processes_build_once(tmp_path):
    script = f"""
        import time
        from archsae_core.storage import Store
        def build(work):
            time.sleep(0.5)
            with open({str(tmp_path / "log")!r}, "a") as log:
                log.write("built\\n")
        Store({str(tmp_path)!r}).artifact("stage", {RECIPE!r}, build)
    """
    both = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})

    def fails(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "x.json", fails)
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_json_refuses_nan_and_broken_json_is_named(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    (tmp_path / "y.json").write_text('{"a": ')
    with pytest.raises(CorruptArtifact, match=r"y\.json"):
        read_json(tmp_path / "y.json")


def test_hash_is_of_content_not_of_order_or_container():
    assert canonical_hash({"a": (1, 2), "b": None}) == canonical_hash({"b": None, "a": [1, 2]})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 1.5})
    assert len(canonical_hash({})) == 16


def test_manifest_lists_every_file_with_size_and_hash(tmp_path):
    folder = Store(tmp_path).artifact("stage", RECIPE, build_with([]))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["files"]) == ["data.bin"]
    assert manifest["files"]["data.bin"][0] == 256
    assert manifest["recipe"] == {"a": 1, "b": [2.5, None]}
    assert "torch" in manifest["environment"]


def test_json_nested_too_deeply_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(CorruptArtifact, match=r"x\.json is not readable JSON \(it is nested too deeply\)"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("damage", [damage_flip, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["data.bin", "manifest.json"])
def test_repair_makes_an_artefact_again_and_keeps_what_is_not_ours(tmp_path, monkeypatch, caplog, damage, name):
    folder = Store(tmp_path).artifact("stage", RECIPE, build_with([]))
    damage(folder / name)
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    monkeypatch.setenv(REPAIR, "1")
    for number in ("", "1"):
        assert Store(tmp_path).artifact("stage", RECIPE, build_with([])) == folder
        kept = folder.with_name(f"{folder.name}.kept{number}")
        assert (kept / "mine" / "notes.txt").read_text() == "mine"
        assert f"kept {kept}" in caplog.text
        assert (kept / "data.bin").exists() == (name == "manifest.json" and not number)
        assert {path.name for path in folder.iterdir()} == {"data.bin", "manifest.json"}
        (folder / "mine").mkdir()
        (folder / "mine" / "notes.txt").write_text("mine")


def test_repair_of_a_broken_build_keeps_what_is_not_ours(tmp_path, monkeypatch):
    def broken(work):
        write_atomically(work / "half.bin", lambda path: path.write_bytes(bytes(99)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).artifact("stage", RECIPE, broken)
    work = tmp_path / "stage" / f"{canonical_hash(RECIPE)}.partial"
    damage_flip(work / "half.bin")
    (work / "notes.txt").write_text("mine")
    monkeypatch.setenv(REPAIR, "1")
    folder = Store(tmp_path).artifact("stage", RECIPE, build_with([]))
    assert {path.name for path in folder.iterdir()} == {"data.bin", "manifest.json"}
    assert [path.name for path in work.with_name(f"{work.name}.kept").iterdir()] == ["notes.txt"]


def test_a_link_in_the_place_of_an_artefact_is_kept_and_what_it_leads_to_is_left_alone(tmp_path, monkeypatch):
    folder = Store(tmp_path).artifact("stage", RECIPE, build_with([]))
    folder.rename(tmp_path / "elsewhere")
    damage_flip(tmp_path / "elsewhere" / "data.bin")
    folder.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv(REPAIR, "1")
    assert not Store(tmp_path).artifact("stage", RECIPE, build_with([])).is_symlink()
    assert (tmp_path / "elsewhere" / "data.bin").exists()


def test_a_record_that_was_cut_short_takes_no_entry_with_it(tmp_path):
    work = tmp_path / "a.partial"
    work.mkdir()
    write_atomically(work / "first", lambda path: path.write_text("1"))
    record = work / ".written"
    record.write_text(record.read_text() + '["cut')
    write_atomically(work / "second", lambda path: path.write_text("2"))
    assert set(noted_files(work)) == {"first", "second"}
