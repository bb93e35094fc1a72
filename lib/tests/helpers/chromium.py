"""Chromium without a window, for the tests that need a browser; they skip themselves if there is none."""

import shutil
import time
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def open_chromium():
    """Open Chromium; it asks nobody for anything by itself."""
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield chromium
        chromium.close()


def wait_until(page, question, *, timeout_s=60):
    """Ask a page the same until it says true; it is asked from outside, since a report lets no page ask itself."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(question):
        assert time.monotonic() < end, question
        page.wait_for_timeout(50)
