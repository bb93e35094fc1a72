"""Compile paper kits in tests, and look at what LaTeX says of them."""

import shutil
import subprocess

import pytest

from kvprefix.report.page.join import arrange
from kvprefix.report.paper.build import PACKAGES
from kvprefix.report.paper.kit import write_paper
from kvprefix.report.plots.axes import make_axes, save_drawing


def write_kit(folder, *sections, title="A report"):
    """Write the paper kit of sections ({"title", "items"}), with a drawing for each figure; return its folder."""
    named = arrange({f"{10 * k:02d}-part": section for k, section in enumerate(sections, start=1)})
    draw_missing(folder / "paper", named)
    write_paper(folder, named, title)
    return folder / "paper"


def draw_missing(paper, sections):
    """Draw what strange reports leave out to be quick: a drawing for each figure and width."""
    for section in sections.values():
        for item in section["items"]:
            for place in ("column", "page") if item["kind"] == "figure" else ():
                path = paper / f"{item['name']}-{place}"
                pdf = path.with_name(f"{path.name}.pdf")
                if not pdf.exists() or not pdf.stat().st_size:
                    save_drawing(make_axes()[0], path)


def need_program(name):
    """Skip a test, and say so, where a program is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is missing, so the paper kit is not compiled here; {PACKAGES[name][1]} brings it")


def compile_tex(paper):
    """Compile `all.tex` in columns of 3.33 in; return what is wrong: errors, lines too wide, no page."""
    article = paper / "all.tex"
    text = article.read_text().replace("textwidth=7in", "textwidth=6.9in").replace("sep=0.2in", "sep=0.24in")
    article.write_text(text)
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "all"]
    for _ in range(2):
        done = subprocess.run(command, cwd=paper, stdin=subprocess.DEVNULL, capture_output=True)
    log = (paper / "all.log").read_text(encoding="utf-8", errors="replace").split("\n")
    wrong = [line for line in log if line.startswith(("!", "Overfull", "LaTeX Error", "Missing character"))]
    wrong += [line for line in log if "undefined" in line and "reference" in line.lower()]
    return wrong if (paper / "all.pdf").is_file() or wrong else [f"no page: {done.stdout[-300:]}"]


def find_wide_tables(paper):
    """Yield the tables that fit in no layout, so that they are scaled; no TeX is needed."""
    for path in sorted(paper.glob("tab-*.tex")):
        if "resizebox" in path.read_text():
            yield f"{path.name}: too wide, and scaled"
