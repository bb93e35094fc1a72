"""Make HTML of what sections say in Markdown: no foreign HTML, only the report's own pictures, tables in a region."""

import html
import re

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markupsafe import Markup

from kvprefix.report.page.pictures import embed_picture


class _Renderer(RendererHTML):
    """Render tokens by the rules of the page; a method has the name of its token. `env` holds the report's folder."""

    def image(self, tokens, index, options, env):
        alt = html.escape(self.renderInlineAsText(tokens[index].children, options, env))
        shown = embed_picture(env["folder"], str(tokens[index].attrs["src"]))
        if shown is None:
            return f"[no figure of this report: {alt}]"
        return f'<img src="{shown["src"]}" width="{shown["width"]}" height="{shown["height"]}" alt="{alt}">'

    def heading_open(self, tokens, index, options, env):
        """Keep the levels that are the page's own."""
        tokens[index].tag = f"h{max(4, int(tokens[index].tag[1]))}"
        return self.renderToken(tokens, index, options, env)

    heading_close = heading_open

    def table_open(self, *_):
        return '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n'

    def table_close(self, *_):
        return "</table></div>\n"

    def th_open(self, tokens, index, options, env):
        """State by a class what Markdown would state by a style, which the page's policy forbids."""
        token = tokens[index]
        if token.attrs.pop("style", "") == "text-align:right":
            token.attrSet("class", "n")
        if token.tag == "th":
            token.attrSet("scope", "col")
        return self.renderToken(tokens, index, options, env)

    td_open = th_open


_MARKDOWN = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")


def render_blocks(text, folder):
    """Return Markdown as paragraphs, lists and tables of HTML; `folder` is the report's, for its pictures."""
    return Markup(keep_percent(_MARKDOWN.render(text, {"folder": folder})))


def render_words(text, folder):
    """Return Markdown of one paragraph as HTML that stands in one."""
    return Markup(keep_percent(_MARKDOWN.renderInline(text, {"folder": folder})))


def keep_percent(text):
    """Return text whose percent signs stay on the line of their number.

    >>> keep_percent("56.5 %")
    '56.5\\xa0%'
    """
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)
