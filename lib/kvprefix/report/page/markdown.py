"""Write a report's sections as one Markdown page."""

from collections import Counter

from kvprefix.files.escape import escape_markdown
from kvprefix.report.page.anchors import make_anchor
from kvprefix.report.tables import table_markdown
from kvprefix.report.words import say


def render_markdown(title, sections):
    """Return the page: of a title (plain text) and of the sections that `join.arrange` returns."""
    parts, failed = [f"# {escape_markdown(title)}"], list_failed(sections)
    addresses = _address(title, sections)
    if failed:
        parts.append(f"> {say_incomplete(failed)}")
    for name, section in sections.items():
        parts.append(f"## {escape_markdown(section['title'])}")
        if "failed" in section:
            parts.append(f"> {explain_failure(name, section)}")
        parts += [RENDER[item["kind"]](item, addresses) for item in section["items"]]
    return "\n\n".join(parts) + "\n"


def list_failed(sections):
    """Return the names of the notebooks that failed."""
    return [name for name, section in sections.items() if "failed" in section]


def say_incomplete(failed):
    """Return the sentence (Markdown) at the top of a report that is not complete."""
    return say("incomplete.md", {"failed": failed})


def explain_failure(name, section):
    """Return why the notebook of a section failed, in Markdown."""
    reason = section["failed"]
    facts = {"name": name, "reason": reason, "ended": reason.endswith((".", "…")), "shown": bool(section["items"])}
    return say("failed_section.md", facts)


def name_item(item):
    """Return how a report calls a figure or a table: its number and its file's name.

    >>> name_item({"kind": "figure", "number": 12, "name": "40-lru-curve"})
    'Figure 12, 40-lru-curve'
    """
    return f"{item['kind'].capitalize()} {item['number']}, {item['name']}"


def _address(title, sections):
    """Return where GitHub's page has a section, by its anchor; of equal headings each after the first has a number."""
    seen, addresses = Counter([make_anchor(title)]), {}
    for section in sections.values():
        anchor = make_anchor(section["title"])
        addresses[section["anchor"]] = f"#{anchor}-{seen[anchor]}" if seen[anchor] else f"#{anchor}"
        seen.update([anchor, *(make_anchor(item["heading"]) for item in section["items"] if item.get("heading"))])
    return addresses


def _render_text(item, _=None):
    text = escape_markdown(item["text"]) if item.get("plain") else item["text"]
    return f"### {escape_markdown(item['heading'])}\n\n{text}" if item["heading"] else text


def _render_figure(item, _=None):
    return f"{_picture(item, 'figures/{}.png')}\n\n*{name_item(item)}.* {escape_markdown(item['caption'])}"


def _render_table(item, _=None):
    return f"*{name_item(item)}.* {escape_markdown(item['caption'])}\n\n{table_markdown(item)}"


def _render_absent(item, _=None):
    return f"- {escape_markdown(item['text'])}"


def _render_findings(item, addresses=None):
    """Return page one: sentences, the next step, caveats, and the small figures in two columns.

    Without addresses, outside a report, there are neither links to its places nor small figures.
    """
    said = [_render_finding(k, finding, addresses) for k, finding in enumerate(item["findings"], start=1)]
    small = item["figures"] if addresses else []
    cells = [f"{_picture(one['figure'], 'paper/{}-column.png')}<br>{_place(one, addresses)}" for one in small]
    rows = [f"| {' | '.join([*cells, ''][k : k + 2])} |" for k in range(0, len(cells), 2)]
    table = "\n".join(["| | |", "|:-:|:-:|", *rows]) if cells else ""
    caveats = "\n".join(f"- {text}" for text in item["caveats"])
    next_step = f"> **Do this next.** {item['next']}" if item["next"] else ""
    return "\n\n".join(part for part in (item["lead"], "\n".join(said), next_step, caveats, table) if part)


def _render_finding(number, finding, addresses):
    place = f" ({_place(finding, addresses)})" if addresses and finding["section"] else ""
    return f"{number}. {finding['text']}{place}"


def _place(one, addresses):
    """Return links to a section and, if there is one, to a figure of it."""
    figure, section = one["figure"], one["section"]
    place = f"[{escape_markdown(section['title'])}]({addresses[section['anchor']]})"
    return f"{place}, [{name_item(figure)}](figures/{figure['name']}.png)" if figure else place


def _picture(item, path):
    return f"![{name_item(item)}]({path.format(item['name'])})"


RENDER = {
    "text": _render_text, "figure": _render_figure, "table": _render_table, "absent": _render_absent,
    "findings": _render_findings,
}  # fmt: skip
