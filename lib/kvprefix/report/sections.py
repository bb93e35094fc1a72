"""Gather what notebooks find into sections, and the sections into one report in Markdown and HTML.

A notebook's `Section` shows each finding in place and records it; `write_report` joins all sections of a folder in the
order of their names. The notebooks decide what is said.

Titles, headings, captions and tables are plain text and are escaped here. Only what is said is Markdown: the caller
escapes text from outside in it (`files.escape.escape_markdown`), or says all of it as `plain`.
"""

import base64
import html
import json
import re
from pathlib import Path

from IPython.display import Image, Markdown, display
from markdown_it import MarkdownIt

from kvprefix.files.escape import escape_markdown
from kvprefix.files.paths import InputError, resolve_output, write_bytes
from kvprefix.report.facts.plain import make_plain
from kvprefix.report.plots.axes import STYLE, complete_caption, save_figure
from kvprefix.report.section_files import SHARING, begin_section, read_sections, write_facts, write_section
from kvprefix.report.tables import save_table
from kvprefix.report.words import say


class Section:
    """One notebook's part of the report: shown at once, recorded in `sections/NAME.json` and `facts/NAME.json`.

    Sentences are made of the recorded facts. Running a cell again replaces what it recorded before; running the set-up
    cell again removes all.

    Parameters
    ----------
    name : str
        The notebook's name, ``NN-noun-phrase``; its number goes before the names of its figures and tables.
    title : str
    folder : path-like
        The report folder; a relative one is read from the project's top.
    parameters : Parameters, optional
        The parameters of its facts; required to keep facts.
    """

    def __init__(self, name, title, folder, parameters=None):
        self.name, self.title, self.folder, self.parameters = name, title, resolve_output(folder), parameters
        self.items, self.facts = {}, {}
        begin_section(self.folder, name)
        self._save()

    def say(self, heading, text, *, plain=False):
        """Show and record Markdown (text as it is if `plain`) under a heading, unless the heading is empty."""
        text = escape_markdown(text) if plain else text
        self._record(f"text-{heading}", f"### {escape_markdown(heading)}\n\n{text}" if heading else text)
        display(Markdown(text))

    def show_figure(self, slug, figure, data, caption, also=None):
        """Show, save and record a figure as `figures/NN-slug`; `also` saves it under a second, fixed name."""
        caption = complete_caption(caption, figure)
        name = f"{self._number()}-{slug}"
        save_figure(figure, data, caption, self.folder / "figures" / name)
        if also:
            for suffix in (".png", ".pdf"):
                write_bytes(self.folder / f"{also}{suffix}", (self.folder / "figures" / f"{name}{suffix}").read_bytes())
        caption = escape_markdown(caption)
        self._record(f"figure-{slug}", f"![{caption}](figures/{name}.png)\n\n*Figure {name}.* {caption}")
        width = int(figure.get_size_inches()[0] * 150)
        display(Image(self.folder / "figures" / f"{name}.png", width=width), Markdown(f"*{caption}*"))

    def show_table(self, slug, frame, caption, formats=None):
        """Show, save and record a table as `tables/NN-slug`."""
        name = f"{self._number()}-{slug}"
        markdown = save_table(frame, self.folder / "tables" / name, caption, formats)
        caption = escape_markdown(caption)
        self._record(f"table-{slug}", f"*Table {name}.* {caption}\n\n{markdown}")
        display(Markdown(markdown), Markdown(f"*{caption}*"))

    def say_facts(self, heading, name, facts):
        """Record facts, and show and record what the template `words/NAME.md` says of them, under a heading."""
        self.say(heading, say(f"{name}.md", self.keep(name, facts)))

    def keep(self, name, facts):
        """Record facts by the name of their template, for the conclusion and for readers; return them as plain values.

        Raises
        ------
        InputError
            If the section was made without parameters.
        TypeError
            If a fact is no number, name, flag, list or dict.
        """
        if self.parameters is None:
            raise InputError(f"section {self.name} keeps facts of no parameters; expected Section(..., parameters)")
        self.facts[name] = make_plain(facts)
        write_facts(self.folder, self.name, self.facts, self.parameters)
        return self.facts[name]

    def _number(self):
        return self.name.split("-")[0]

    def _record(self, key, markdown):
        self.items[key] = markdown
        self._save()

    def _save(self):
        write_section(self.folder, self.name, self.title, self.items.values())


def read_stats(folder, parameters):
    """Read both modes' statistics of a report folder: a dict of mode to the content of `*_stats.json`.

    If notebook 20 failed, this run has none: the result holds the `parameters` alone.

    Raises
    ------
    InputError
        If notebook 20 has not written them yet.
    """
    folder = resolve_output(folder)
    if "failed" in read_sections(folder).get(SHARING, {}):
        return {"multi_turn": {"parameters": {**parameters.as_dict(), "versions": {}}}}
    stats = {}
    for mode in ("single_turn", "multi_turn"):
        path = folder / f"{mode}_stats.json"
        if not path.exists():
            raise InputError(f"{path}: is not there yet; run notebook {SHARING} with the same output_dir first")
        stats[mode] = json.loads(path.read_text())
    return stats


def write_report(title, front, back):
    """Join the sections of a report folder to `report.md` and a self-contained `report.html`.

    The section of a failed notebook is a box with the reason, followed by what the notebook showed before.

    Parameters
    ----------
    title : str
    front, back : Section
        The first and the last section; those of all other notebooks stand between, in the order of their names.

    Returns
    -------
    pathlib.Path
        The HTML file.
    """
    folder, sections = front.folder, read_sections(front.folder)
    names = [front.name, *(name for name in sections if name not in (front.name, back.name)), back.name]
    failed = [name for name in names if "failed" in sections[name]]
    parts = [f"# {escape_markdown(title)}"]
    if failed:
        listed = ", ".join(map(escape_markdown, failed))
        parts.append(_Box(f"**This report is not complete.** Failed: {listed}. The reasons stand in their sections."))
    for name in names:
        section = sections[name]
        items = [*([_explain_failure(name, section)] if "failed" in section else []), *section["items"]]
        if items:
            parts += [f"## {escape_markdown(section['title'])}", *items]
    quoted = [f"> {part}" if isinstance(part, _Box) else part for part in parts]
    write_bytes(folder / "report.md", "\n\n".join(quoted) + "\n")
    write_bytes(folder / "report.html", _render_html(parts, title, folder))
    return folder / "report.html"


class _Box(str):
    """A paragraph of Markdown that is set off: a quotation in Markdown, a box in HTML."""


def _explain_failure(name, section):
    kept = "What follows was made before that." if section["items"] else "It has made nothing before that."
    where = f"The notebook {escape_markdown(name)} stopped at {escape_markdown(section['failed'])}"
    return _Box(f"**This section failed.** {where}{'' if where.endswith(('.', '…')) else '.'} {kept}")


def _render_html(parts, title, folder):
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", lambda renderer, *given: _render_image(folder, renderer, *given))
    box = '<aside class="failed" role="note">\n{}</aside>\n'
    rendered = [(box if isinstance(part, _Box) else "{}").format(markdown.render(part)) for part in parts]
    headings = []

    def anchor(match):
        headings.append(match[1])
        return f'<h2 id="section-{len(headings)}">{match[1]}</h2>'

    body = re.sub(r"<h2>(.*?)</h2>", anchor, "".join(rendered[1:]))
    links = "".join(f'<li><a href="#section-{k}">{text}</a></li>' for k, text in enumerate(headings, start=1))
    page = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    values = {"title": html.escape(title), "heading": rendered[0], "contents": links, "body": body}
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
