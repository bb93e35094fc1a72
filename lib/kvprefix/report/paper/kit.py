"""Write the paper kit of a report: floats, numbers, and the article of all of them."""

import contextlib

from kvprefix.files.paths import write_bytes
from kvprefix.report.paper.build import PACKAGES
from kvprefix.report.paper.documents import list_floats, write_article, write_markdown
from kvprefix.report.paper.floats import PLACES, name_float, write_figure, write_table
from kvprefix.report.paper.numbers import PREFIX, show_headlines, write_numbers
from kvprefix.report.section_files import read_run_facts


def write_paper(folder, sections, title):
    """Write `paper/` of a report folder: floats, `numbers.tex`, `all.tex` and `all.md`.

    Other floats there, and what an earlier run was compiled to, are removed. A figure without its drawing has no float.

    Parameters
    ----------
    folder : pathlib.Path
    sections : dict
        As `page.join.arrange` returns them.
    title : str
    """
    paper, floats = folder / "paper", {}
    for item in list_floats(sections):
        for place in PLACES:
            if item["kind"] == "table":
                floats[name_float(item, place)] = write_table(item, place)
            elif (paper / f"{item['name']}-{place}.pdf").is_file():
                floats[name_float(item, place)] = write_figure(item, place)
    shown, missing = show_headlines(read_run_facts(folder))
    headlines = [(f"{PREFIX}{one.macro}", one.what) for one, _ in shown]
    texts = {f"{name}.tex": text for name, text in floats.items()}
    texts |= {"numbers.tex": write_numbers(shown, missing), "all.md": write_markdown(title, sections)}
    texts |= {"all.tex": write_article(title, sections, set(floats), headlines)}
    for name, text in texts.items():
        write_bytes(paper / name, text)
    for path in (*paper.glob("*.tex"), *(paper / name for name, _ in PACKAGES.values())):
        if path.name not in texts:
            with contextlib.suppress(OSError):
                path.unlink()
