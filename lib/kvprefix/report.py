"""Gather what notebooks find into sections, and the sections into one report in Markdown and HTML.

A notebook's `Section` shows each finding where it is made and records it; `write_report` joins all sections of a
folder in the order of their names. What is said is the notebooks' business.
"""

import base64
import html
import json
import re
from pathlib import Path

from IPython.display import Image, Markdown, display
from markdown_it import MarkdownIt

from kvprefix.files import InputError, explain_os_errors, resolve_output, write_bytes
from kvprefix.plot import STYLE, complete_caption, save_figure
from kvprefix.tables import save_table


class Section:
    """One notebook's part of the report: shown at once, recorded in `sections/NAME.json`.

    Running a cell again replaces what it recorded before; running the set-up cell again begins anew.

    Parameters
    ----------
    name : str
        The notebook's name, ``NN-noun-phrase``; its number goes before the names of its figures and tables.
    title : str
    folder : path-like
        The report folder; a relative one is read from the project's top.
    """

    def __init__(self, name, title, folder):
        self.name, self.title, self.folder = name, title, resolve_output(folder)
        self.items = {}
        self._save()

    def say(self, heading, text):
        """Show and record a paragraph or more of Markdown under a heading (an empty one adds none)."""
        self._record(f"text-{heading}", f"### {heading}\n\n{text}" if heading else text)
        display(Markdown(text))

    def show_figure(self, slug, figure, data, caption, also=None):
        """Show, save and record a figure as `figures/NN-slug`; `also` saves it under a name that the mission fixes."""
        caption = complete_caption(caption, figure)
        name = f"{self._number()}-{slug}"
        save_figure(figure, data, caption, self.folder / "figures" / name)
        if also:
            for suffix in (".png", ".pdf"):
                write_bytes(self.folder / f"{also}{suffix}", (self.folder / "figures" / f"{name}{suffix}").read_bytes())
        self._record(f"figure-{slug}", f"![{caption}](figures/{name}.png)\n\n*Figure {name}.* {caption}")
        width = int(figure.get_size_inches()[0] * 150)
        display(Image(self.folder / "figures" / f"{name}.png", width=width), Markdown(f"*{caption}*"))

    def show_table(self, slug, frame, caption, formats=None):
        """Show, save and record a table as `tables/NN-slug`."""
        name = f"{self._number()}-{slug}"
        markdown = save_table(frame, self.folder / "tables" / name, caption, formats)
        self._record(f"table-{slug}", f"*Table {name}.* {caption}\n\n{markdown}")
        display(Markdown(markdown), Markdown(f"*{caption}*"))

    def _number(self):
        return self.name.split("-")[0]

    def _record(self, key, markdown):
        self.items[key] = markdown
        self._save()

    def _save(self):
        record = {"title": self.title, "items": list(self.items.values())}
        write_bytes(self.folder / "sections" / f"{self.name}.json", json.dumps(record, ensure_ascii=False, indent=1))


def read_stats(folder):
    """Read both modes' statistics of a report folder: a dict of mode to the content of `*_stats.json`.

    Raises
    ------
    InputError
        Where notebook 20 has not written them yet.
    """
    folder = resolve_output(folder)
    stats = {}
    for mode in ("single_turn", "multi_turn"):
        path = folder / f"{mode}_stats.json"
        if not path.exists():
            raise InputError(f"{path}: is not there yet; run notebook 20-prefix-sharing with the same output_dir first")
        stats[mode] = json.loads(path.read_text())
    return stats


def write_report(title, front, back):
    """Join the sections of a report folder to `report.md` and a self-contained `report.html`.

    Parameters
    ----------
    title : str
    front, back : Section
        What stands before and after the sections of all other notebooks, which come in the order of their names.

    Returns
    -------
    pathlib.Path
        The HTML file.
    """
    folder, ends = front.folder, {front.name, back.name}
    others = sorted(path.stem for path in (folder / "sections").glob("*.json") if path.stem not in ends)
    names = [front.name, *others, back.name]
    with explain_os_errors(folder):
        sections = [json.loads((folder / "sections" / f"{name}.json").read_text()) for name in names]
    parts = [f"# {title}"]
    for section in sections:
        if section["items"]:
            parts.append("\n\n".join([f"## {section['title']}", *section["items"]]))
    markdown = "\n\n".join(parts) + "\n"
    write_bytes(folder / "report.md", markdown)
    write_bytes(folder / "report.html", _render_html(markdown, title, folder))
    return folder / "report.html"


def _render_html(markdown, title, folder):
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'<img src="([^"]+)"', lambda match: f"<img {_embed(folder / match[1])}", body)
    headings = []

    def anchor(match):
        headings.append(match[1])
        return f'<h2 id="section-{len(headings)}">{match[1]}</h2>'

    body = re.sub(r"<h2>(.*?)</h2>", anchor, body)
    links = "".join(f'<li><a href="#section-{k}">{text}</a></li>' for k, text in enumerate(headings, start=1))
    page = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    heading, body = body.split("\n", 1)
    values = {"title": html.escape(title), "heading": heading, "contents": links, "body": body}
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], page)


def _embed(path):
    """Return the attributes of an image with its bytes inside, as wide on the page as on paper (150 pixels an inch)."""
    data = path.read_bytes()
    width = int.from_bytes(data[16:20], "big") * 150 // STYLE["savefig.dpi"]  # a PNG states its width at byte 16
    return f'width="{width}" src="data:image/png;base64,{base64.b64encode(data).decode()}"'
