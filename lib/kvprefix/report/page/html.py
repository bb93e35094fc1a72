"""Write a report's sections as one self-contained HTML page: `report.html.j2` with its style and its script inside.

The page asks for nothing: its policy (CSP) forbids every request and every script but its own.
"""

import base64
import hashlib
import html
import re
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from kvprefix.files.escape import one_line
from kvprefix.report.page.markdown import explain_failure, list_failed, name_item, say_incomplete
from kvprefix.report.page.pictures import embed_picture

PAGE = Path(__file__).parent
LONG = 15  # rows; a longer table is folded
SHORT = 24  # letters; names of rows up to here stay on one line
FIRST = 8  # rows that stand for a folded table without a narrow form that is shorter
FILES = {
    "figure": {"CSV": "figures/{}.csv", "PDF": "figures/{}.pdf", "column PDF": "paper/{}-column.pdf",
               "TeX": "paper/{}.tex"},
    "table": {"CSV": "tables/{}.csv", "Markdown": "tables/{}.md", "TeX": "tables/{}.tex",
              "column TeX": "paper/{}.tex"},
}  # fmt: skip


def render_html(title, sections, folder):
    """Return the page: of a title (plain text), the sections that `join.arrange` returns, and the report's folder."""
    style, script = ((PAGE / f"report.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    failed = list_failed(sections)
    fronts = [name for name, one in sections.items() if any(item["kind"] == "findings" for item in one["items"])]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return _environment(folder).get_template("report.html.j2").render(
        title=title, sections=sections, fronts=fronts, style=Markup(style), script=Markup(script), digest=digest,
        incomplete=say_incomplete(failed) if failed else None,
    )  # fmt: skip


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
        finalize=lambda value: _keep_percent(one_line(value)) if type(value) is str else value,
    )  # fmt: skip
    markdown = _markdown(folder)
    environment.filters |= {
        "markdown": lambda text: Markup(_keep_percent(markdown.render(text))),
        "words": lambda text: Markup(_keep_percent(markdown.renderInline(text))),
    }
    environment.globals |= {
        "fold_table": fold_table, "names_rows": names_rows, "name_item": name_item, "explain": explain_failure,
        "files_of": lambda item: _files_of(item, folder), "picture": lambda *which: embed_picture(folder, *which),
    }  # fmt: skip
    return environment


def _keep_percent(text):
    """Return text whose percent signs stay on the line of their number."""
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)


def _files_of(item, folder):
    """Return the files beside a figure or a table, their addresses by kind; only those that are there."""
    if not re.fullmatch(r"[\w-][\w.-]*", item["name"]):
        return {}
    places = {kind: place.format(item["name"]) for kind, place in FILES[item["kind"]].items()}
    return {kind: quote(place) for kind, place in places.items() if (folder / place).is_file()}


def _markdown(folder):
    """Return what renders Markdown: without foreign HTML, with this report's own pictures, its tables in a region."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    def show_image(renderer, tokens, index, options, env):
        alt = html.escape(renderer.renderInlineAsText(tokens[index].children, options, env))
        shown = embed_picture(folder, str(tokens[index].attrs["src"]))
        if shown is None:
            return f"[no figure of this report: {alt}]"
        return f'<img src="{shown["src"]}" width="{shown["width"]}" height="{shown["height"]}" alt="{alt}">'

    def begin_cell(renderer, tokens, index, options, env):
        tokens[index].attrSet("scope", "col")
        return renderer.renderToken(tokens, index, options, env)

    def below_headings(renderer, tokens, index, options, env):
        tokens[index].tag = f"h{max(4, int(tokens[index].tag[1]))}"
        return renderer.renderToken(tokens, index, options, env)

    region = '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n'
    rules = {
        "image": show_image, "th_open": begin_cell, "heading_open": below_headings, "heading_close": below_headings,
        "table_open": lambda *_: region, "table_close": lambda *_: "</table></div>\n",
    }  # fmt: skip
    for name, rule in rules.items():
        markdown.add_render_rule(name, lambda renderer, *given, rule=rule: rule(renderer, *given))
    return markdown
