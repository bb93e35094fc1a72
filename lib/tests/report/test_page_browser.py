"""The report's page in Chromium: on a desk and on a phone, light and dark, on paper, and without its script."""

import re
import shutil
import subprocess

import pytest
from chromium import CHROMIUM, open_chromium, wait_until
from pages import make_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.filterwarnings("default"),
]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def visit(browser, report):
    """Open the report's page, by default on a desk; what it asks for and complains of is in its `heard`."""
    contexts = []

    def opened(viewport=DESK, **settings):
        context = browser.new_context(viewport=viewport, **settings)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url[:80]))
        page.goto(report)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_is_silent_fits_and_can_be_read_by_all(visit, report, viewport, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(viewport, color_scheme=scheme)
    assert [one for one in page.heard if not one.startswith("data:")] == [report]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 300)")
    for details in page.locator(".table details").all():
        details.locator("summary").click()
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_dark_is_dark_but_figures_keep_a_white_card(visit):
    def colours(scheme):
        page = visit(color_scheme=scheme)
        seen = [page.locator(which).first.evaluate("one => getComputedStyle(one).backgroundColor")
                for which in ("body", "figure img")]  # fmt: skip
        return [sum(map(int, re.findall(r"\d+", one)[:3])) / 3 for one in seen]

    assert colours("light") == [255, 255]
    page, card = colours("dark")
    assert page < 40 and card == 255


def test_contents_stay_beside_the_text_and_mark_what_is_read(visit):
    page = visit()
    contents = page.locator("#contents details")
    current = page.locator("#contents [aria-current]")
    assert contents.get_by_text("Cache size").is_visible() and current.inner_text() == "The answer"
    assert not contents.get_by_text("What decides a hit").is_visible()  # a heading of another section
    contents.get_by_text("Cache size").click()
    wait_until(page, "document.querySelector('#contents [aria-current]').innerText == 'Cache size'")
    contents.get_by_text("What decides a hit").click()
    wait_until(page, "document.querySelector('#contents [aria-current]').innerText == 'What decides a hit'")
    assert page.url.endswith("#cache-size-what-decides-a-hit") and page.evaluate("scrollY") > 500
    assert 0 <= contents.bounding_box()["y"] < 60


def test_contents_are_a_bar_that_opens_on_a_phone(visit):
    page = visit(PHONE)
    link = page.locator("#contents").get_by_text("What decides a hit")
    assert not link.is_visible()
    page.locator("#contents summary").click()
    link.click()
    wait_until(page, "scrollY > 500")
    assert not link.is_visible()
    bar, heading = page.locator("#contents").bounding_box(), page.locator("#cache-size-what-decides-a-hit")
    assert bar["y"] == 0 and bar["height"] < 60 and heading.bounding_box()["y"] >= bar["height"] - 1


def test_the_page_needs_no_script(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#contents").get_by_text("What decides a hit").is_visible()
    page = visit(PHONE, java_script_enabled=False)
    assert not page.locator("#contents").get_by_text("Cache size").is_visible()
    page.locator("#contents summary").click()
    assert page.locator("#contents").get_by_text("Cache size").is_visible()


def test_a_mark_of_a_link_is_seen_under_the_pointer_and_at_the_keyboard(visit):
    page = visit()
    mark = page.locator("#cache-size .anchor")
    assert mark.evaluate("one => getComputedStyle(one).opacity") == "0"
    mark.focus()
    wait_until(page, "getComputedStyle(document.querySelector('#cache-size .anchor')).opacity == 1")
    page.locator("#figure-40-reuse figcaption").hover()
    wait_until(page, "getComputedStyle(document.querySelector('#figure-40-reuse .anchor')).opacity == 1")


def test_only_a_wide_table_scrolls_and_the_keyboard_reaches_it(visit):
    page = visit()
    wide = page.locator("#table-40-wide .scroll")
    assert page.locator(".scroll[tabindex='0']").count() == 1 and wide.get_attribute("tabindex") == "0"
    wide.focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, "document.querySelector('#table-40-wide .scroll').scrollLeft > 0")
    page.wait_for_timeout(400)  # until it stands still
    caption = page.locator("#table-40-wide caption span").bounding_box()
    assert caption["x"] >= wide.bounding_box()["x"] and caption["width"] <= wide.bounding_box()["width"]


def test_a_phone_shows_the_figure_that_was_drawn_for_a_column(visit):
    width = "document.querySelector('#figure-40-lru-curve img').naturalWidth"
    assert (visit().evaluate(width), visit(PHONE).evaluate(width)) == (2100, 1020)


def test_paper_has_contents_all_rows_and_no_addresses(visit):
    page = visit()
    page.emulate_media(media="print")
    assert page.locator("#contents").get_by_text("What decides a hit").is_visible()
    rows = page.locator("#table-40-long details tbody tr")
    assert rows.count() == 60 and all(row.is_visible() for row in rows.all())
    assert not page.locator("#table-40-long .main").is_visible() and page.locator("#table-40-folded .main").is_visible()
    assert not any(page.locator(which).first.is_visible() for which in (".files", ".anchor", ".table summary"))
    assert page.evaluate(
        "[...document.querySelectorAll('figure, tr')].every(one => getComputedStyle(one).breakInside == 'avoid')"
    )
    assert page.locator("#table-40-wide .scroll").evaluate("one => getComputedStyle(one).overflow") == "visible"


def test_a_printed_page_repeats_the_heads_of_its_tables(visit, tmp_path):
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext on this machine (Debian: apt-get install poppler-utils)")
    page = visit(color_scheme="dark")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    ran = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, check=True)
    first, second, *others = ran.stdout.decode().split("\f")
    assert "Third caveat." in first and "Contents" in second and "Contents" not in first
    pages = [text for text in others if len(re.findall(r"(?m)^ *\d+ +0\.25$", text)) > 4]
    assert len(pages) > 2 and all(re.search(r"(?m)^ *blocks +rate$", text) for text in pages)
    assert "https://example.org" not in ran.stdout.decode()
