"""Page one: the answer before any method, as sentences of this run's facts, a next step and caveats."""

from IPython.display import Markdown, display

from kvprefix.report.facts.answer import FINDINGS, facts_answer
from kvprefix.report.words import WORDS, say


def show_answer(section, found):
    """Show and record page one.

    Parameters
    ----------
    section : Section
    found : dict
        The facts of this run's notebooks (`section_files.read_facts`).
    """
    facts = section.keep("answer", facts_answer(found, section.parameters))
    findings = [
        {"text": say(f"answer_{one.name}.md", facts["findings"][one.name]), "notebook": one.notebook,
         "figure": one.figure}
        for one in FINDINGS if facts["findings"].get(one.name) is not None
    ]  # fmt: skip
    item = {
        "kind": "findings",
        "findings": findings,
        "next": say("answer_next.md", facts["next"]) if facts["next"] else "",
        "caveats": WORDS.say_each("answer_caveats.md", facts["limits"]),
    }
    section.record("findings", item)
    lines = [f"1. {one['text']}" for one in findings] + ["", item["next"], ""]
    display(Markdown("\n".join([*lines, *(f"- {caveat}" for caveat in item["caveats"])])))


def title_report(folder, parameters, date):
    """Return the title of a report: its name, its data and the date of its results."""
    data = "the bundled ShareGPT" if parameters.data == "bundled" else parameters.data.rstrip("/").rsplit("/", 1)[-1]
    return f"{folder.name}: prefix sharing of the KV cache in {data}, {date}"
