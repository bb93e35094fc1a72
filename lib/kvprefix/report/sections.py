"""Record what a notebook finds as a section of the report: text, figures and tables, each shown in place.

The notebooks decide what is said; `page` makes one report of all sections, and `paper` what is pasted into a paper.

Titles, headings, captions and tables are plain text, which is escaped where it is shown. Only what is said is Markdown:
the caller escapes text from outside in it (`files.escape.escape_markdown`), or says all of it as `plain`.
"""

from IPython import get_ipython
from IPython.display import Image, Markdown, display

from kvprefix.files.escape import escape_markdown
from kvprefix.files.paths import InputError, resolve_output, write_bytes
from kvprefix.report.facts.plain import make_plain
from kvprefix.report.plots.axes import COLUMN_IN, PAGE_IN, complete_caption, save_drawing, save_figure
from kvprefix.report.section_files import begin_section, write_facts, write_section
from kvprefix.report.tables import narrow_cells, save_table, table_markdown
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
        self.record(f"text-{heading}", {"kind": "text", "heading": heading, "text": text})
        _show(Markdown(text))

    def say_facts(self, heading, name, facts):
        """Record facts, and show and record what the template `words/NAME.md` says of them, under a heading."""
        self.say(heading, say(f"{name}.md", self.keep(name, facts)))

    def show_figure(self, slug, caption, draw, *arguments, also=None):
        """Draw, show, save and record a figure as `figures/NN-slug`, and at both widths of a paper in `paper/`.

        Parameters
        ----------
        slug : str
        caption : str
            Plain text. Where a panel shows nothing, the reason is added.
        draw : callable
            ``draw(*arguments)`` returns the figure and its plotted data; ``width_in`` draws it for another width.
        also : str, optional
            A second, fixed name of the figure.
        """
        figure, data = draw(*arguments)
        name, caption = f"{self._number()}-{slug}", complete_caption(caption, figure)
        save_figure(figure, data, caption, self.folder / "figures" / name)
        for width, width_in in (("column", COLUMN_IN), ("page", PAGE_IN)):
            suffixes = (".pdf", ".png") if width == "column" else (".pdf",)  # the PNG is for Markdown and page one
            path = self.folder / "paper" / f"{name}-{width}"
            if figure.get_size_inches()[0] == width_in:
                for suffix in suffixes:
                    write_bytes(f"{path}{suffix}", (self.folder / "figures" / f"{name}{suffix}").read_bytes())
            else:
                save_drawing(draw(*arguments, width_in=width_in)[0], path, suffixes)
        for suffix in (".png", ".pdf") if also else ():
            write_bytes(self.folder / f"{also}{suffix}", (self.folder / "figures" / f"{name}{suffix}").read_bytes())
        self.record(f"figure-{slug}", {"kind": "figure", "name": name, "caption": caption})
        width = int(figure.get_size_inches()[0] * 150)
        _show(Image(self.folder / "figures" / f"{name}.png", width=width), Markdown(f"*{escape_markdown(caption)}*"))

    def show_table(self, slug, caption, frame, formats=None, narrow=None):
        """Show, save and record a table as `tables/NN-slug`; `narrow` is its form for a paper (a `tables.Narrow`)."""
        name = f"{self._number()}-{slug}"
        shown = save_table(frame, self.folder / "tables" / name, caption, formats)
        table = {"kind": "table", "name": name, "caption": caption, **shown, "narrow": narrow_cells(shown, narrow)}
        self.record(f"table-{slug}", table)
        _show(Markdown(table_markdown(shown)), Markdown(f"*{escape_markdown(caption)}*"))

    def leave_out(self, text):
        """Show and record (plain text) that a part has no content: a line at the report's end."""
        self.record(f"absent-{text}", {"kind": "absent", "text": text})
        _show(Markdown(escape_markdown(text)))

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

    def record(self, key, item):
        """Record an item of the report, a dict with its `kind`, in the place of an earlier one of that key."""
        self.items[key] = item
        self._save()

    def _number(self):
        return self.name.split("-")[0]

    def _save(self):
        write_section(self.folder, self.name, self.title, self.items.values())


def _show(*things):
    """Show things in a notebook; elsewhere, as in a command, a section is only recorded."""
    if get_ipython() is not None:
        display(*things)
