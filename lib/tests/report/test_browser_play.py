"""What `make lab` opens, the explorer and the policy notebook, in a real browser. Skipped if there is none."""

import time

import pytest
from chromium import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
LOOK = """async () => {
    const file = await (await fetch(document.querySelector('.widget-image').src)).arrayBuffer();
    return [...new Uint8Array(await crypto.subtle.digest('SHA-1', file))].join();
}"""
DONE = "() => ![...document.querySelectorAll('.jp-InputPrompt')].some(one => one.innerText.includes('*'))"


def open_notebook(browser, lab, name):
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?token=test&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    return page


def run_all(page, more=""):
    """Add lines to the parameters and run all cells."""
    cell = page.locator(".jp-CodeCell .cm-content").first
    cell.wait_for()
    cell.click()
    page.keyboard.press("Control+End")
    page.keyboard.type(f'\ndata = "data/sample/conversations.json"\nblock_size = 16{more}')
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()


def test_make_lab_opens_the_tour_and_asks_nothing(browser, lab):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/?token=test")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    assert page.url.endswith("/notebooks/00-tour.ipynb")
    page.wait_for_timeout(4000)
    assert page.get_by_text("official Jupyter news").count() == 0 and page.locator(".jp-Launcher").count() == 0
    page.close()


def test_the_explorer_redraws_at_each_move_and_prints_its_line(browser, lab, tmp_path):
    page = open_notebook(browser, lab, "05-explore")
    run_all(page)
    page.locator(".widget-image").wait_for(timeout=120_000)
    took = {}

    def readout():
        return page.locator(".widget-html p").first.inner_text()

    def move(name, act, *, changes_point=True):
        before, said, start = page.evaluate(LOOK), readout(), time.monotonic()
        act()
        while page.evaluate(LOOK) == before or changes_point and readout() == said:
            assert time.monotonic() < start + 30, name
            page.wait_for_timeout(20)
        took[name] = round(time.monotonic() - start, 2)

    def slide(label, key):
        def act():
            page.locator(".widget-slider", has_text=label).locator(".noUi-handle").focus()
            page.keyboard.press(key)

        return act

    def choose(label, value):
        return lambda: page.locator(".widget-dropdown", has_text=label).locator("select").select_option(label=value)

    press = page.get_by_role("button", name="Pin").click
    move("memory", slide("memory", "PageDown"))
    move("pin", press, changes_point=False)
    move("rate", slide("conversations per s", "PageUp"), changes_point=False)
    move("block size", slide("block size", "ArrowRight"))
    move("replies", page.locator(".widget-checkbox input").click, changes_point=False)
    move("model", choose("of KV cache of", "Qwen3-8B"), changes_point=False)
    move("think time", slide("think time", "PageDown"), changes_point=False)
    move("policy", choose("policy", "FIFO (leaf)"))
    page.get_by_role("button", name="make line").click()
    line = page.locator(".widget-html pre")
    line.wait_for()
    assert line.inner_text().startswith("make report NAME=explore-") and "KV_MODEL=Qwen3-8B" in line.inner_text()
    assert "BLOCK_SIZE=32" in line.inner_text() and "DATA=data/sample/conversations.json" in line.inner_text()
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    print("seconds to the new figure:", took)
    page.screenshot(path=tmp_path / "explorer.png")
    page.close()


def test_the_policy_notebook_runs_in_jupyterlab(browser, lab, project_copy):
    page = open_notebook(browser, lab, "51-my-policy")
    run_all(page)
    figures = "() => document.querySelectorAll('.jp-OutputArea-output img').length == 2"
    wait_until(page, figures, timeout_s=240)
    wait_until(page, DONE)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert (project_copy / "reports/scratch/tables/51-evictions.csv").exists()
    page.close()
