"""A report with one of everything that a page can hold, and its page as a tree."""

import html5lib
import pandas as pd
from drawn import draw_line

from kvprefix.report.page.join import write_report
from kvprefix.report.plots.axes import PAGE_IN
from kvprefix.report.section_files import mark_failed
from kvprefix.report.sections import Section
from kvprefix.report.tables import Narrow

TITLE = "Prefix sharing: mine, chats.jsonl, 2026-11-29"
LONG = pd.DataFrame({"blocks": range(60), "rate": 0.25})
WIDE = pd.DataFrame({f"a_column_of_a_wide_table_{k}": ["word", "another"] for k in range(14)})


def draw_wide(*_, width_in=PAGE_IN):
    """Draw a line at a page's width, unless asked for another."""
    return draw_line(width_in=width_in)


def make_report(folder, fails=True):
    """Write a report with page one, all kinds of items and, if asked for, failed sections; return the HTML file."""
    page_one, method, sizes, last = (
        Section(name, title, folder)
        for name, title in (("00-answer", "The answer"), ("00-method", "Method"), ("40-cache-size", "Cache size"),
                            ("70-engine-check", "Engine check"))
    )  # fmt: skip
    figures = ["40-lru-curve", "40-reuse", None, "50-policies", "40-lru-curve"]
    findings = [{"text": f"Sentence {k} says **{k}.5 %**.", "figure": name} for k, name in enumerate(figures, start=1)]
    findings[2]["notebook"], findings[3]["notebook"] = "40-cache-size", "50-eviction"
    page_one.record("findings", {
        "kind": "findings", "lead": "The **lead**.", "findings": findings, "next": "Run `make report`.",
        "caveats": ["First caveat.", "Second caveat.", "Third caveat."],
    })  # fmt: skip
    method.say("Definitions", "| word | means |\n|:--|:--|\n| block | B tokens |")
    method.say("", "> A quotation, `code`, and [a link](https://example.org).\n\n- one\n- two")
    sizes.show_figure("lru-curve", "Hit rate over capacity; 5 % and more.", draw_wide)
    sizes.say("How much memory", "Text. " * 60)
    sizes.show_figure("reuse", "Reuse.", draw_line)
    sizes.say("What decides a hit", "Text. " * 200)
    sizes.show_table("needs", "A short table.", pd.DataFrame({"share": ["50 %", "90 %"], "blocks": [3, 40]}))
    sizes.show_table("long", "A long table.", LONG)
    narrow = Narrow(LONG.head(3), notes=("Only three.",))
    sizes.show_table("folded", "A table with a narrow form.", LONG, narrow=narrow)
    sizes.show_table("wide", "A wide table. " * 12, WIDE)
    last.leave_out("A live server: there is no recording of one.")
    if fails:
        mark_failed(folder, "50-eviction", "Eviction", "cell 7: ZeroDivisionError: division by zero")
    return write_report(folder, TITLE)


def parse(page):
    """Return the root of a page of HTML; any error of the parser is raised."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def words(node):
    """Return the text of a node, spaces made one."""
    return " ".join("".join(node.itertext()).split())
