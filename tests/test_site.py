"""The site that `make site` builds: every page in headless Chromium, from files, wide and narrow, light and dark."""

import subprocess
import sys
from pathlib import Path

import pytest
from sharing import once

from docs.site import PAGES, main, pages_of

pytestmark = pytest.mark.browser
PROJECT = Path(__file__).parents[1]
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What the command says when it refuses its arguments."""

    def refused(*arguments):
        monkeypatch.setattr(sys, "argv", ["docs.site", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return refused


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the site's packages are not installed: pip install .[site]")

    def make(path):
        explorer = path.with_name("site-explorer")
        explorer.mkdir()
        (explorer / "index.html").write_text("<!doctype html><title>Feature explorer</title>")
        command = [sys.executable, "-m", "docs.site", "--out", str(path), "--explorer", str(explorer)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "site", make)


@pytest.fixture(params=[("desktop", "light"), ("phone", "dark")], ids="-".join)
def page(request, watched_page):
    size, scheme = request.param
    width, height = SIZES[size]
    return watched_page(is_fault, viewport={"width": width, "height": height}, color_scheme=scheme)


def is_fault(message):
    """The theme reports as an error that a reader has chosen neither light nor dark yet."""
    return message.type == "error" and "Resetting to auto" not in message.text


def scheme_of(page):
    return page.evaluate("document.documentElement.dataset.theme")


def test_every_page_opens_fits_and_shows_its_images(site, page):
    names = pages_of(site)
    assert {"index", "api", "contributing", *PAGES} <= set(names)
    assert sum(name.startswith("notebooks/") for name in names) == 7
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for name in names:
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_load_state()
        assert page.locator("h1").count() >= 1, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        assert scheme_of(page) == ("dark" if dark else "light"), name
        page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
        broken = (
            "Promise.all([...document.images].map(i => i.decode().catch(() => i.src))).then(x => x.filter(Boolean))"
        )
        assert page.evaluate(broken) == [], name
        assert page.evaluate("[...document.images].filter(image => !image.alt).map(image => image.src)") == [], name


def test_mathematics_is_set_without_a_network(site, page):
    page.goto((site / "notebooks" / "03_archetypal_sae.html").as_uri())
    page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-merror").count() == 0


def test_search_finds_a_page(site, page):
    page.goto((site / "search.html").as_uri() + "?q=centroids")
    page.wait_for_selector("#search-results li a")
    links = page.eval_on_selector_all("#search-results li a", "all => all.map(each => each.getAttribute('href'))")
    assert any("01_anchors" in link for link in links)


def test_the_report_is_read_by_its_navigation(site, page):
    page.goto((site / "index.html").as_uri())
    if page.viewport_size["width"] == SIZES["phone"][0]:
        page.locator("button.primary-toggle:visible").first.click()
    page.locator("nav a:visible", has_text="05 ·").first.click()
    page.wait_for_url("**/05_stability.html")
    assert page.locator("h1").first.inner_text().startswith("05")
    page.goto((site / "index.html").as_uri())
    page.locator("a", has_text="Open the feature explorer").click()
    page.wait_for_url("**/explorer/index.html")


@pytest.mark.parametrize("name", ["notes.txt", "index.html"])
def test_a_folder_with_something_of_others_is_left_alone(refusal, tmp_path, name):
    out = tmp_path / "site"
    out.mkdir()
    (out / "searchindex.js").write_text("of another project")
    (out / name).write_text("mine")
    assert "it holds what this command did not write, such as" in refusal("--out", out)
    assert (out / name).read_text() == "mine"


def test_a_page_that_a_person_changed_is_not_replaced(site, refusal):
    changed = site / "usage.html"
    text = changed.read_text()
    try:
        changed.write_text(text + "<!-- mine -->")
        assert "such as usage.html" in refusal("--out", site)
    finally:
        changed.write_text(text)


def test_nothing_is_written_beside_the_site(site):
    assert not (site.parent / "jupyter_execute").exists()


def test_the_sources_of_the_site_are_no_place_for_it(refusal):
    assert "it is among the sources of the site" in refusal("--out", PROJECT / "docs" / "html")
    assert not (PROJECT / "docs" / "html").exists()
