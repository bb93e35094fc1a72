"""Join the sections of a report folder to `report.md`, a self-contained `report.html` and the paper kit.

Sections stand in the order of their names. That of a failed notebook is a box with the reason, followed by what the
notebook showed before. What has no content is a line at the end.
"""

from kvprefix.files.paths import resolve_output, write_bytes
from kvprefix.report.page.html import render_html
from kvprefix.report.page.markdown import render_markdown
from kvprefix.report.paper.kit import write_paper
from kvprefix.report.section_files import read_sections


def write_report(folder, title):
    """Write the report of all sections of a folder.

    Parameters
    ----------
    folder : path-like
    title : str

    Returns
    -------
    pathlib.Path
        The HTML file.
    """
    folder = resolve_output(folder)
    sections = arrange(read_sections(folder))
    write_bytes(folder / "report.md", render_markdown(title, sections))
    write_bytes(folder / "report.html", render_html(title, sections, folder))
    write_paper(folder, sections, title)
    return folder / "report.html"


def arrange(sections):
    """Return the sections that have content, their figures and tables numbered, and a last one of what has none.

    Parameters
    ----------
    sections : dict
        Of `section_files.read_sections`.

    Returns
    -------
    dict
        The same, by name. Every figure and table has a `number`; what was left out is the section `absent`.
    """
    numbers, arranged, absent = {"figure": 0, "table": 0}, {}, []
    for name, section in sections.items():
        items = []
        for item in section["items"]:
            if item["kind"] == "absent":
                absent.append(item["text"])
                continue
            if item["kind"] in numbers:
                numbers[item["kind"]] += 1
                item = {**item, "number": numbers[item["kind"]]}
            items.append(item)
        if items or "failed" in section:
            arranged[name] = {**section, "items": items}
    if absent:
        listed = [{"kind": "text", "heading": "", "text": line, "plain": True} for line in absent]
        arranged["absent"] = {"title": "Not in this report", "items": listed}
    return arranged
