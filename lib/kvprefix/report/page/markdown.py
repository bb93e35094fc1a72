"""Write a report's sections as one Markdown page."""

from kvprefix.files.escape import escape_markdown
from kvprefix.report.tables import table_markdown


def render_markdown(title, sections):
    """Return the page: of a title (plain text) and of the sections that `join.arrange` returns."""
    parts, failed = [f"# {escape_markdown(title)}"], list_failed(sections)
    if failed:
        parts.append(f"> {say_incomplete(failed)}")
    for name, section in sections.items():
        parts.append(f"## {escape_markdown(section['title'])}")
        if "failed" in section:
            parts.append(f"> {explain_failure(name, section)}")
        parts += [RENDER[item["kind"]](item) for item in section["items"]]
    return "\n\n".join(parts) + "\n"


def list_failed(sections):
    """Return the names of the notebooks that failed."""
    return [name for name, section in sections.items() if "failed" in section]


def say_incomplete(failed):
    """Return the sentence (Markdown) at the top of a report that is not complete."""
    listed = ", ".join(map(escape_markdown, failed))
    return f"**This report is not complete.** Failed: {listed}. The reasons stand in their sections."


def explain_failure(name, section):
    """Return why the notebook of a section failed, in Markdown."""
    kept = "What follows was made before that." if section["items"] else "It has made nothing before that."
    where = f"The notebook {escape_markdown(name)} stopped at {escape_markdown(section['failed'])}"
    return f"**This section failed.** {where}{'' if where.endswith(('.', '…')) else '.'} {kept}"


def render_text(item):
    """Return a text under its heading."""
    text = escape_markdown(item["text"]) if item.get("plain") else item["text"]
    return f"### {escape_markdown(item['heading'])}\n\n{text}" if item["heading"] else text


def _render_figure(item):
    caption = escape_markdown(item["caption"])
    return f"![{caption}](figures/{item['name']}.png)\n\n*{name_item(item)}.* {caption}"


def _render_table(item):
    return f"*{name_item(item)}.* {escape_markdown(item['caption'])}\n\n{table_markdown(item)}"


def _render_findings(item):
    sentences = "\n".join(f"{k}. {one['text']}" for k, one in enumerate(item["findings"], start=1))
    following = f"**Next.** {item['next']}" if item["next"] else ""
    return "\n\n".join(filter(None, [sentences, following, "\n".join(f"- {one}" for one in item["caveats"])]))


def name_item(item):
    """Return how a report calls a figure or a table: its number and its file's name.

    >>> name_item({"kind": "figure", "number": 12, "name": "40-lru-curve"})
    'Figure 12, 40-lru-curve'
    """
    return f"{item['kind'].capitalize()} {item['number']}, {item['name']}"


RENDER = {"text": render_text, "figure": _render_figure, "table": _render_table, "findings": _render_findings}
