"""JupyterLab and the HTML report in a real browser (Chromium, headless). Skipped if there is none."""

import pytest
from chromium import wait_until
from places import PROJECT

from kvprefix.report.notebooks import execute_notebooks
from kvprefix.report.page.join import write_report
from kvprefix.report.section_files import mark_failed
from kvprefix.report.sections import Section
from kvprefix.traces.parameters import Parameters

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]


def test_notebook_20_runs_in_jupyterlab_and_writes_to_scratch_only(browser, lab, project_copy):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/tree/notebooks/20-prefix-sharing.ipynb?token=test")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    cell = page.locator(".jp-CodeCell .cm-content").first
    cell.wait_for()
    cell.click()
    page.keyboard.press("Control+End")
    page.keyboard.type('\ndata = "data/sample/conversations.json"\nblock_size = 8')  # a changed parameter
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    wait_until(
        page,
        """() => document.querySelectorAll('.jp-OutputArea-output img').length >= 4 && ![...document
        .querySelectorAll('.jp-InputPrompt')].some(one => one.innerText.includes('*'))""",
        timeout_s=180,
    )
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('.jp-OutputArea-output img')].every(one => one.naturalWidth > 300)"
    )
    page.close()
    assert [path.name for path in (project_copy / "reports").iterdir()] == ["scratch"]
    assert '"block_size": 8' in (project_copy / "reports/scratch/multi_turn_stats.json").read_text()


def test_the_html_report_opens_with_all_figures_and_no_console_error(browser, tmp_path):
    parameters = Parameters(data=str(PROJECT / "data/sample/conversations.json"), block_size=8)
    names = ("10-workload", "20-prefix-sharing", "90-report")
    assert execute_notebooks([PROJECT / f"notebooks/{name}.ipynb" for name in names], parameters, tmp_path) == 0
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    widths = page.evaluate("[...document.images].map(one => one.naturalWidth)")
    assert len(widths) == 8 + 1 and min(widths) > 300  # the figures, and a small one on page one
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()


@pytest.mark.parametrize("width", [1200, 360])
def test_the_box_of_a_failed_section_is_seen_at_any_width(browser, tmp_path, width):
    Section("00-front", "Title", tmp_path).say("", "a-file-name-without-an-end-" * 9, plain=True)
    mark_failed(tmp_path, "20-x", "Failed", f"cell 4: ValueError: <b>{'x' * 250}</b>")
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.goto(write_report(tmp_path, "Report").as_uri())
    notice, box = page.locator("aside.failed").all()
    assert notice.is_visible() and "This report is not complete. Failed: 20-x." in notice.inner_text()
    assert "stopped at cell 4: ValueError: <b>xxx" in box.inner_text()
    colours = [one.evaluate("one => getComputedStyle(one).borderLeftColor") for one in (notice, box)]
    assert colours == ["rgb(179, 38, 30)"] * 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
