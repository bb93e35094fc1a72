"""Write a report's sections as one self-contained HTML page."""

import base64
import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

from kvprefix.report.page.markdown import (
    RENDER,
    explain_failure,
    list_failed,
    say_incomplete,
)
from kvprefix.report.plots.axes import STYLE

BOX = '<aside class="failed" role="note">\n{}</aside>\n'


def render_html(title, sections, folder):
    """Return the page: of a title (plain text), the sections that `join.arrange` returns, and the report's folder."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", lambda renderer, *given: _render_image(folder, renderer, *given))
    parts, failed = [], list_failed(sections)
    if failed:
        parts.append(BOX.format(markdown.render(say_incomplete(failed))))
    for k, (name, section) in enumerate(sections.items(), start=1):
        parts.append(f'<h2 id="section-{k}">{html.escape(section["title"])}</h2>\n')
        if "failed" in section:
            parts.append(BOX.format(markdown.render(explain_failure(name, section))))
        parts += [markdown.render(RENDER[item["kind"]](item)) for item in section["items"]]
    titles = [html.escape(section["title"]) for section in sections.values()]
    links = "".join(f'<li><a href="#section-{k}">{text}</a></li>' for k, text in enumerate(titles, start=1))
    page = (Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8")
    values = {"title": html.escape(title), "heading": f"<h1>{html.escape(title)}</h1>", "contents": links,
              "body": "".join(parts)}  # fmt: skip
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], page)


def _render_image(folder, renderer, tokens, index, options, env):
    """Return an image of the report's own `figures/`, with its bytes inside and 150 pixels per inch; else its text."""
    token = tokens[index]
    alt, source = renderer.renderInlineAsText(token.children, options, env), str(token.attrs["src"])
    path = folder / source
    if not re.fullmatch(r"figures/[\w-][\w.-]*\.png", source) or path.is_symlink() or not path.is_file():
        return html.escape(f"[no figure of this report: {alt}]")
    data = path.read_bytes()
    width = int.from_bytes(data[16:20], "big") * 150 // STYLE["savefig.dpi"]  # a PNG states its width at byte 16
    encoded = base64.b64encode(data).decode()
    return f'<img width="{width}" src="data:image/png;base64,{encoded}" alt="{html.escape(alt)}" />'
