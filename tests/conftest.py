"""Fixtures that several test files share."""

import os
import shutil
import subprocess
import sys

import hypothesis
import pytest
import torch
import transformers
from sharing import once
from stub_hub import StubHub

from soak.disk import copied_project
from soak.processes import begin, finish

# a deadline fails a test where the machine is busy
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


LONGEST = (
    "test_faults.py", "test_explorer_page.py", "test_pages_render.py", "test_extremes.py", "test_scheduler.py",
    "test_benchmarks.py", "test_site.py", "test_documented_commands.py", "test_cleaning.py", "test_report.py",
    "test_estimate.py", "test_identifiability.py", "test_installed.py", "test_features.py",
)  # fmt: skip
"""Files that take longest. The first makes `published`: the others that need it come late, so as not to wait for it."""


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no process is left with one of them at the end.

    What needs a finished report with its notebooks is `long`: whoever asks first for it waits for two minutes.
    """
    for item in items:
        if "published" in item.fixturenames:
            item.add_marker("long")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny models are faster on one thread, here and in what a test starts; sums do not depend on the machine."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def short_trials():
    """Estimates time each kind of work for a moment: tests are not about how exact they are."""
    from archsae_study.engine import costs, estimate

    costs.TRIAL, estimate.LOOK = 0.02, 0.0


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stub of the Hugging Face hub with an empty cache, to which all of the hub's libraries talk."""
    import datasets
    import huggingface_hub

    from archsae_core.data import model_files

    stub = StubHub(tmp_path / "hub", gated=("user/gated",))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stub.url)
    template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", stub.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    model_files._pinned.cache_clear()
    yield stub
    stub.close()
    model_files._pinned.cache_clear()


@pytest.fixture(scope="session")
def second_model(tmp_path_factory):
    """Folder of a GPT-2 of three blocks that differs from the one of the smoke preset in every weight."""
    from archsae_core.data import random_model
    from archsae_core.data.model_files import quiet_transformers

    path = tmp_path_factory.mktemp("second") / "tiny"
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.GPT2Config(**random_model.recipe(64) | {"n_layer": 3, "n_head": 2, "n_embd": 16})
        transformers.GPT2LMHeadModel(config).save_pretrained(path)
        random_model.tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture
def seeded():
    """torch.randn gives a test the same numbers whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory):
    """Folder of runs with every table of the smoke preset. Tests may add to it; none may change what is there."""
    return once(tmp_path_factory, "smoke_runs", lambda root: finish(begin(root, "tables")))


@pytest.fixture(scope="session")
def published(smoke_runs, tmp_path_factory):
    """Folder with `project`, a copy in which `report --publish` ran from another directory with ASCII output, and
    `stdout`, what it printed. Its tables were there: the notebooks were left to run.
    """

    def run(folder):
        project, elsewhere = copied_project(folder / "project"), folder / "elsewhere"
        elsewhere.mkdir()
        command = [sys.executable, "-m", "archsae_study", "report", "--preset", "smoke", "--runs", str(smoke_runs)]
        environment = os.environ | {"PYTHONPATH": str(project), "PYTHONIOENCODING": "ascii"}
        done = subprocess.run([*command, "--publish"], cwd=elsewhere, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        (folder / "stdout").write_bytes(done.stdout)

    return once(tmp_path_factory, "published", run)


@pytest.fixture(scope="session")
def smoke_tables(smoke_runs):
    """Run folder of the smoke report with its tables, and with notebooks where `published` was asked for."""
    from archsae_study.report import run_folder
    from archsae_study.settings.config import configure

    return run_folder(configure({"preset": "smoke"}), smoke_runs)


@pytest.fixture(scope="session")
def smoke_report(smoke_tables, published):
    """Run folder of the finished smoke report."""
    return smoke_tables


REQUIRE_BROWSER = "ARCHSAE_REQUIRE_BROWSER"
"""Set in the environment: a test in a browser fails where none is found, instead of being passed over."""


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium of the system; `$ARCHSAE_CHROMIUM` names another one."""
    places = (os.environ.get("ARCHSAE_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for place in places if place and (path := shutil.which(place))), None)
    if found is None:
        reason = "no Chromium: install it (Debian: apt-get install chromium) or name it in ARCHSAE_CHROMIUM"
        if os.environ.get(REQUIRE_BROWSER):
            pytest.fail(f"{reason}; {REQUIRE_BROWSER} is set")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in most containers, Chromium starts only without its sandbox; the pages are the tests' own.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=found, args=options)
        yield running
        running.close()


@pytest.fixture
def watched_page(browser):
    """`watched_page(faulty, **options)`: a page whose test fails for an error, a message in the console that is
    `faulty`, a dialog, a failed request, or a request for anything but a local file."""
    contexts, errors = [], []

    def open_page(faulty=lambda message: message.type in ("error", "warning"), **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)  # on a busy machine a page takes seconds
        page.on("console", lambda message: errors.append(message.text) if faulty(message) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}"))
        local = ("file:", "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(local) or errors.append(request.url))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
