"""Write a report's sections as one self-contained HTML page: `report.html.j2` with its style and its script inside.

The page asks for nothing: its policy (CSP) forbids every request and every script but its own.
"""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kvprefix.files.escape import one_line
from kvprefix.report.page.markdown import explain_failure, list_failed, name_item, say_incomplete
from kvprefix.report.page.pictures import choose_small, embed_picture
from kvprefix.report.page.prose import keep_percent, render_blocks, render_words

PAGE = Path(__file__).parent
LONG = 15  # rows; a longer table is folded
SHORT = 24  # letters; names of rows up to here stay on one line
FIRST = 8  # rows that stand for a folded table without a narrow form that is shorter
FILES = {
    "figure": {"CSV": "figures/{}.csv", "PDF": "figures/{}.pdf", "column PDF": "paper/{}-column.pdf",
               "TeX": "paper/fig-{}.tex"},
    "table": {"CSV": "tables/{}.csv", "Markdown": "tables/{}.md", "TeX": "tables/{}.tex",
              "column TeX": "paper/tab-{}.tex"},
}  # fmt: skip


def render_html(title, sections, folder):
    """Return the page: of a title (plain text), the sections that `join.arrange` returns, and the report's folder."""
    style, script = ((PAGE / f"report.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    failed = list_failed(sections)
    fronts = [name for name, one in sections.items() if any(item["kind"] == "findings" for item in one["items"])]
    return _environment(folder).get_template("report.html.j2").render(
        title=title, sections=sections, fronts=fronts, style=Markup(style), script=Markup(script),
        digests={"style": _digest(style), "script": _digest(script)},
        incomplete=say_incomplete(failed) if failed else None,
    )  # fmt: skip


def _digest(text):
    """Return how a page's policy names a style or a script that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def fold_table(item):
    """Return a table's main rows and a note on them, if it is too long to be shown whole; else None.

    These are its narrow form, if that is shorter, else the first rows.
    """
    rows, narrow = item["rows"], item["narrow"]
    if len(rows) <= LONG:
        return None
    if len(narrow["rows"]) < len(rows):
        return {**narrow, "first": False}
    return {**item, "rows": rows[:FIRST], "notes": [], "first": True}


def names_rows(shown):
    """Return whether a table's first column names its rows, each by a name of its own: "short", "long" or None."""
    names = [row[0] for row in shown["rows"]]
    if not all(names) or len(set(names)) < len(names) or len(shown["head"]) < 2:
        return None
    return "short" if max(map(len, names), default=0) <= SHORT else "long"


def _environment(folder):
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: keep_percent(one_line(value)) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {
        "markdown": lambda text: render_blocks(text, folder), "words": lambda text: render_words(text, folder),
    }  # fmt: skip
    environment.globals |= {
        "fold_table": fold_table, "names_rows": names_rows, "name_item": name_item, "explain": explain_failure,
        "files_of": lambda item: _files_of(item, folder), "picture": lambda *which: embed_picture(folder, *which),
        "small": lambda name: choose_small(folder, name),
    }  # fmt: skip
    return environment


def _files_of(item, folder):
    """Return the files beside a figure or a table, their addresses by kind; only those that are there."""
    if not re.fullmatch(r"[\w-][\w.-]*", item["name"]):
        return {}
    places = {kind: place.format(item["name"]) for kind, place in FILES[item["kind"]].items()}
    return {kind: quote(place) for kind, place in places.items() if (folder / place).is_file()}
