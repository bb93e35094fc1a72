"""Join the sections of a report folder to `report.md`, a self-contained `report.html` and the paper kit.

Sections stand in the order of their names. That of a failed notebook is a box with the reason, followed by what the
notebook showed before. What has no content is a line at the end.
"""

from kvprefix.files.paths import resolve_output, write_bytes
from kvprefix.report.page.anchors import Anchors
from kvprefix.report.page.html import render_html
from kvprefix.report.page.markdown import render_markdown
from kvprefix.report.paper.kit import write_paper
from kvprefix.report.section_files import read_sections

SMALL_FIGURES = 8  # on page one


def write_report(folder, title):
    """Write the report of all sections of a folder.

    Parameters
    ----------
    folder : path-like
    title : str
        Plain text: the page's title and its first heading.

    Returns
    -------
    pathlib.Path
        The HTML file.
    """
    folder = resolve_output(folder)
    sections = arrange(read_sections(folder))
    write_bytes(folder / "report.md", render_markdown(title, sections))
    write_paper(folder, sections, title)
    write_bytes(folder / "report.html", render_html(title, sections, folder))  # which links what is in `paper/`
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
        The same, by name. Every figure and table has a `number`, and they, the headings and the sections have an
        `anchor`: an id that is made of their title or name and that nothing else has. Findings know their figure and
        section. What was left out is the section `absent`.
    """
    numbers, arranged, absent, anchors = {"figure": 0, "table": 0}, {}, [], Anchors()
    for name, section in sections.items():
        absent += [item for item in section["items"] if item["kind"] == "absent"]
        items = [dict(item) for item in section["items"] if item["kind"] != "absent"]
        if items or "failed" in section:
            arranged[name] = {**section, "items": items, "anchor": anchors.take(section["title"] or name)}
    for section in arranged.values():
        for item in section["items"]:
            if item["kind"] in numbers:
                numbers[item["kind"]] += 1
                item |= {"number": numbers[item["kind"]], "anchor": anchors.take(f"{item['kind']} {item['name']}")}
            elif item.get("heading"):
                item["anchor"] = anchors.take(f"{section['anchor']} {item['heading']}")
    _resolve_findings(arranged)
    if absent:
        arranged["absent"] = {"title": "Not in this report", "items": absent, "anchor": anchors.take("absent")}
    return arranged


def _resolve_findings(sections):
    """Give each finding its figure and its section, None if this report has none; list the small figures."""
    shown = {
        item["name"]: (item, section)
        for section in sections.values() for item in section["items"] if item["kind"] == "figure"
    }  # fmt: skip
    for item in [item for section in sections.values() for item in section["items"] if item["kind"] == "findings"]:
        findings = []
        for finding in item["findings"]:
            figure, section = shown.get(finding["figure"], (None, sections.get(finding.get("notebook"))))
            findings.append({"text": finding["text"], "figure": figure, "section": section})
        small = {one["figure"]["name"]: one for one in findings if one["figure"]}
        item |= {"lead": item.get("lead", ""), "findings": findings, "figures": list(small.values())[:SMALL_FIGURES]}
