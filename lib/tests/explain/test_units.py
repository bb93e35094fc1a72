"""Texts in units, what differs between two of them, which kind it is, and how it is masked."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.explain.advice.changes import change_text
from kvprefix.explain.advice.fixes import Fix
from kvprefix.explain.advice.kinds import classify
from kvprefix.explain.advice.shown import hide, hide_value
from kvprefix.explain.advice.sites import Site
from kvprefix.explain.advice.units import canonical, compare_texts, cut_units, cut_value, plain_space

PIECES = st.sampled_from(["Be kind.", " ", "\n", "{", '{"a": [1, 2]}', "[", "It is 8:15!", "\t", "]", "\r\n", "x"])


@given(st.lists(PIECES, max_size=20).map("".join))
def test_units_are_the_text(text):
    assert "".join(cut_units(text)) == text


@pytest.mark.parametrize("depth", [100, 450, 900, 5000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_json_of_any_depth_is_compared(depth, begin, end):
    text = begin * depth + "1" + end * depth
    assert canonical(text) == canonical(text)
    assert len(list(compare_texts(f"Of {text}", f"Of {text.replace('1', '2')}"))) == 1


@given(st.lists(PIECES, max_size=20).map("".join))
def test_plain_space_is_stable(text):
    assert plain_space(plain_space(text)) == plain_space(text)
    assert plain_space(text).split() == text.split()


def test_json_of_many_lines_is_one_unit():
    tools = json.dumps([{"name": "add", "about": "Adds. Quickly."}], indent=1)
    assert cut_units(f"Use them.\nTools: {tools}\nEnd.") == ["Use them.\n", f"Tools: {tools}\n", "End."]


@pytest.mark.parametrize(
    ("here", "there", "sorts"),
    [
        ("The user is Ana.\nGo.", "The user is Bo.\nGo.", ["value"]),
        ("Debug.\nGo on now.", "Go on now.", ["only"]),
        ("One.\nTwo.\nSix.", "Two.\nOne.\nSix.", ["order"]),
        ('{"a": 1, "b": 2}\nGo.', '{"b": 2, "a": 1}\nGo.', ["json"]),
        ("One  two.\nGo.", "One two.\nGo.", ["whitespace"]),
        ("One.\n\nGo.", "One.\nGo.", ["whitespace"]),
        ("It is 8:15.\nId: a1.\nGo.", "It is 8:16.\nId: b2.\nGo.", ["value", "value"]),
        ("One.", "One.", []),
    ],
)
def test_what_differs(here, there, sorts):
    assert [one.sort for one in compare_texts(here, there)] == sorts


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ("now=1764000037", "now=1764000074", "1764000037"),
        ("[request 9] Go.", "[request 10] Go.", "9"),
        ("It is 2026-01-05T08:15:00Z.", "It is 2026-01-05T08:17:00Z.", "2026-01-05T08:15:00Z"),
        ("by ana@example.org, go", "by bo@example.org, go", "ana@example.org"),
    ],
)
def test_a_value_is_whole_words(one, other, value):
    assert cut_value(one, other)[1] == value


@pytest.mark.parametrize(
    ("kind", "values"),
    {
        "time": ["2026-11-25T08:00:37Z", "08:15", "8:15 PM", "1764000037", "1764000037123", "Monday, 8:05 AM"],
        "date": ["2026-11-25", "25.11.2026", "11/25/2026", "25 novembre 2026", "November 25, 2026", "3. M\u00e4rz",
                 "2026\u5e7411\u670825\u65e5", "Monday"],
        "uuid": ["0e2f8e0a-5b0c-4a7e-9d53-6a0f2f3d1c11", "req-81f2a9", "d41d8cd98f00b204e9800998ecf8427e"],
        "number": ["17", "1,204", "3.5 %", "#12"],
        "email": ["ana.li@example.org"],
        "name": ["Ana", "Ana de la Cruz", "J\u00fcrgen O'Neill"],
        "text": ["the sky is blue, and so on", "+-*"],
    }.items(),
)  # fmt: skip
def test_kinds(kind, values):
    assert [classify([one]) for one in values] == [kind] * len(values)


@pytest.mark.parametrize(
    ("kind", "label", "value", "tail"),
    [
        ("date", "Today is ", "25", " November 2026."),
        ("date", "Today is November ", "25", ", 2026."),
        ("time", "It is ", "8", " PM."),
        ("number", "You have ", "25", " rules, since May 2026."),
        ("number", "Step ", "3", " of the plan"),
    ],
)
def test_a_number_may_be_part_of_a_date(kind, label, value, tail):
    assert classify([value], label, tail) == kind


@given(st.text(alphabet="abcXYZ019 -:@", min_size=1, max_size=30))
def test_what_is_hidden_keeps_no_digit_and_no_word(value):
    hidden = re.sub(r"<(?:name|text|id|e-mail)>", "", hide(value)[0])
    assert not re.search(r"[1-9abcYZ]", re.sub(r"20\d\d", "", hidden).replace("X", "").replace("x", ""))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("User: Ana Li / ticket Ana-7", "User: <name> / ticket <name>-x"),
        ("User: \u65e5\u672c \U0001f98a / ticket 9", "User: <name> / ticket x"),
        ("User: DE1000000000000, +49 171 5550123", "User: <id>, +<id>"),
        ("User: 9:05 on Monday, 26 November 2026", "User: x:xx <text> xxx, xx xxx xxxx"),
        ("ticket 12 at 2026-11-26T09:00:13Z", "ticket 12 at 2026-xx-xxTxx:xx:xxZ"),
    ],
)
def test_words_that_all_have_stay(text, hidden):
    assert hide(text, {"User", "ticket", "at", "12"})[0] == hidden


def test_of_json_the_keys_stay():
    assert hide_value([{"name": "add", "owner": "Ana Li"}]) == '[{"name": "add", "owner": "<text>"}]'


def test_a_sentence_leaves_its_line_whole():
    site = Site(sort="value", path=("messages", 0, "content"), label="It is ", tail=".", places={1})
    assert change_text("Be kind. It is 8:15.\nGo.", [Fix(site=site)])[0] == "Be kind.\nGo.\nIt is 8:15."
    assert change_text("Be kind. It is 8:15.", [Fix(site=site)])[0] == "Be kind. \nIt is 8:15."


def test_lines_in_another_order_keep_their_sentences_and_the_end():
    site = Site(sort="order", path=("messages", 0, "content"), members={"One.", "Go on.", "Two."})
    fix, text = Fix(site=site), "One. Go on.\nTwo."
    for unit in cut_units(text):
        fix._know(unit)
    for other in (text, "Two.\nOne. Go on."):
        assert change_text(other, [fix])[0] == text
