"""Words: a template says its facts and nothing else, escapes what is from outside, and is used."""

import inspect
import json
import re
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from jinja2 import TemplateError, UndefinedError
from places import LIB, PROJECT
from said import make_stats

from kvprefix.files.escape import escape_markdown
from kvprefix.live.findings import WORDS as LIVE_WORDS
from kvprefix.report.facts.answer import FINDINGS
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.words import WORDS, Words, say

ROOMS = {"report": WORDS, "live": LIVE_WORDS}
FACTS = [
    f"report.facts.{path.stem}" for path in sorted((LIB / "kvprefix/report/facts").glob("*.py"))
    if path.stem not in ("__init__", "plain", "narrow", "plan_tables")
] + ["report.captions", "live.facts"]  # fmt: skip


@pytest.fixture
def words(tmp_path):
    def make(**templates):
        for name, text in templates.items():
            (tmp_path / f"{name.replace('_', '.', 1)}.j2").write_text(text)
        return Words(tmp_path)

    return make


@pytest.mark.parametrize(
    ("template", "facts", "text"),
    [
        ("One,\ntwo.\n", {}, "One, two."),
        ("One.\n\n\nTwo.", {}, "One.\n\nTwo."),
        ("One\n{% if a %}\n, two\n{% endif %}\n.\nThree", {"a": True}, "One, two. Three"),
        ("One\n{% if a %}\n, two\n{% endif %}\n.\nThree", {"a": False}, "One. Three"),
        ("{% for n in a %}\n{% if not loop.first %}; {% endif %}\n{{ n }}\n{% endfor %}.", {"a": [1, 2]}, "1; 2."),
        ("Of:\n- {{ a }}\n- b\n  c\n", {"a": 3}, "Of:\n- 3\n- b c"),
        ("| a |\n|:--|\n| {{ a }} |", {"a": "x|y"}, "| a |\n|:--|\n| x\\|y |"),
        ("{{ a }}", {"a": "*a* <b>\n# c"}, r"\*a\* \<b> # c"),
        ("{{ 'with ' ~ a }}", {"a": "_b_"}, r"with \_b\_"),
        ("{{ a | code }}", {"a": "a`b"}, "`` a`b ``"),
        ("{{ a | percent }}, {{ b | percent }}", {"a": 0.4059, "b": None}, "40.6 %, –"),
        ("{{ a | seconds }}, {{ a | number('.2f') }}", {"a": 113.25}, "113 s, 113.25"),
        ("{{ a | count('block') }}, {{ b | count('box', 'boxes') }}", {"a": 1.4, "b": 2000}, "1 block, 2,000 boxes"),
        ("{% if a is none %}none{% endif %}", {"a": None}, "none"),
    ],
)  # fmt: skip
def test_a_template_of_markdown(template, facts, text, words):
    assert words(md_=template, **{"x_md": template}).say("x.md", facts) == text


def test_a_template_of_plain_text_escapes_nothing_and_has_lines(words):
    said = words(x_txt="A {{ a }}.\n\n{% if b %}\n\nB.\n{% endif %}\n\nC\n  d.")
    assert said.say("x.txt", {"a": "*x*\ny  z", "b": False}) == "A *x*\ny  z.\nC d."
    assert said.say_each("x.txt", {"a": "x", "b": True}) == ["A x.", "B.", "C d."]


def test_plain_text_within_markdown_is_escaped_as_a_whole(words):
    said = words(x_md="So: {{ plain('y.txt', one) }}.", y_txt="# {{ a }}\n_b_")
    assert said.say("x.md", {"one": {"a": "<i>"}}) == f"So: {escape_markdown('# <i> _b_')}."
    with pytest.raises(TemplateError, match="x.md.j2 includes y.txt.j2; say it with plain"):
        words(x_md="{% include 'y.txt.j2' %}", y_txt="*").say("x.md", {})


@pytest.mark.parametrize(
    "template",
    ["{{ a }}", "{{ a | percent }}", "{{ a | count('b') }}", "{% if a %}x{% endif %}", "{% if a is none %}x{% endif %}",
     "{% for b in a %}{% endfor %}", "{{ c.a }}", "{{ c.a | number('.1f') }}", "{% if c.a != 1 %}x{% endif %}"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["md", "txt"])
def test_a_name_that_the_facts_lack_is_an_error(template, kind, words):
    with pytest.raises(UndefinedError, match="'a' is undefined|no attribute 'a'"):
        words(**{f"x_{kind}": template}).say(f"x.{kind}", {"c": {}})


@pytest.mark.parametrize("value", [0.5, None, True, [1], {}])
def test_a_number_needs_a_form_and_nothing_else_is_put_out(value, words):
    with pytest.raises(TypeError, match="expected text, a whole number, or a filter that shows it"):
        words(x_md="{{ a }}").say("x.md", {"a": value})


def test_a_changed_fact_changes_its_sentence():
    facts = {"turns": 3, "cached": 1000, "prompt": 4000, "by_token": 0.25, "by_request": 0.125}
    text = say("conversation.md", facts)
    assert text == (
        "In this conversation of 3 turns, 1,000 of 4,000 prompt tokens are cached: 25.0 % of the tokens, 12.5 % of an "
        "average prompt. What is left to compute in a turn is the last reply and the new message."
    )
    changed = {"turns": 1, "cached": 999, "prompt": 4001, "by_token": 0.251, "by_request": 0.126}
    texts = {say("conversation.md", facts | {name: value}) for name, value in changed.items()}
    assert len(texts | {text}) == 1 + len(facts)


def test_a_hostile_fact_is_text():
    hostile = "![x](/etc/hostname) <b> _a_ `c`"
    facts = {"agree_points": 1.5, "cases": 1, "short": 1, "short_agree": 0, "short_most_off": 9.0, "not_listed": 0,
             "farthest": [{"variant": hostile, "blocks": 2, "points": 9.0}], "long": 0, "long_most_off": None,
             "independent_most_off": 1.0}  # fmt: skip
    assert f"{escape_markdown(hostile)}, 2 blocks: +9.00" in say("characteristic.md", facts)


@pytest.mark.parametrize("room", ROOMS)
def test_every_template_is_used(room):
    """In a notebook, a module or another template; and every one that they name is there."""
    sources = [*(LIB / "kvprefix").rglob("*.py"), *PROJECT.glob("notebooks/*.ipynb"), *(LIB / "kvprefix").rglob("*.j2")]
    text = "\n".join(path.read_text() for path in sources).replace('\\"', '"')
    said = set(re.findall(r'(?:say|say_each|plain)\("(\w+\.(?:md|txt))"', text))
    said |= {f"{name}.md" for name in re.findall(r'say_facts\(\s*"[^"]*", "(\w+)"', text)}
    said |= set(re.findall(r'include "(\w+\.(?:md|txt))\.j2"', text))
    said |= {f"{name}.txt" for name in import_module("kvprefix.report.plots.sharing").FIGURES}
    said |= {f"answer_{finding.name}.md" for finding in FINDINGS}
    there = {path.name.removesuffix(".j2") for path in (LIB / f"kvprefix/{room}/words").iterdir()}
    assert there and there <= said
    everywhere = {path.name.removesuffix(".j2") for path in (LIB / "kvprefix").rglob("*.j2")}
    assert said <= everywhere


@pytest.mark.parametrize("name", FACTS)
def test_every_function_of_facts_gives_plain_json(name):
    module = import_module(f"kvprefix.{name}")
    found = {name: one for name, one in inspect.getmembers(module, inspect.isfunction) if name.startswith("facts_")}
    own = [one for one in found.values() if one.__module__ == module.__name__]
    assert own and all(getattr(one, "gives_facts", False) for one in own)


def test_facts_are_plain_json_whatever_they_are_made_of():
    row = pd.Series({"a": np.int64(3), "b": np.float64("nan"), "c": np.bool_(True), 4: "x"}, dtype=object)
    facts = gives_facts(lambda: {"row": row.to_dict(), "pair": (np.float32(0.5), None)})()
    assert facts == {"row": {"a": 3, "b": None, "c": True, "4": "x"}, "pair": [0.5, None]}
    assert json.loads(json.dumps(facts)) == facts
    assert [type(one) for one in facts["row"].values()] == [int, type(None), bool, str]
    with pytest.raises(TypeError, match="a fact is"):
        gives_facts(lambda: {"when": pd.Timestamp(0)})()


def test_no_fact_has_the_name_of_a_method_that_a_template_would_find_instead():
    from kvprefix.report.captions import facts_conditions
    from kvprefix.report.facts.workload import facts_dataset, facts_method

    def names(facts):
        for name, one in facts.items():
            yield name
            for inner in one if isinstance(one, list) else [one]:
                if isinstance(inner, dict):
                    yield from names(inner)

    for measure in (facts_conditions, facts_dataset, facts_method):
        assert not set(names(measure(make_stats()))) & set(dir(dict))
