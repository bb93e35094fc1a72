"""Advice on logs with planted defects: found, and won as a plain rewriting of the texts wins it."""

import json
import random
import re
from types import SimpleNamespace

import pytest
from places import SHARED
from planted import DEFECTS, MIXED, make_systems, name, question, rule, session, stamp, system, tool, write_log
from planted import NAMES as NAMES_OF
from planted import shuffled as shuffled_tools
from planted_calls import clear_results, compact, keep_last, make_calls, shuffled, stamped
from samples import save_small_tokenizer

from kvprefix.explain.provenance import find_provenance
from kvprefix.files.paths import InputError
from kvprefix.studies.explain import open_data
from kvprefix.studies.lint import lint, study_lint
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.tokenizer import QWEN_TEMPLATE
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

N = 60
NAMES = dict(zip(("time", "uuid", "name", "order of tools"), MIXED, strict=True))


@pytest.fixture
def open_log(small_folder):
    return lambda path: open_data(Parameters(data=str(path), tokenizer=str(small_folder)), progress=False)


@pytest.fixture
def lint_log(open_log):
    return lambda path, **options: lint(open_log(path), progress=False, **options)


def count_hits(open_log, folder, systems, capacity=None):
    """Return the hit tokens of a log with these system texts."""
    data = open_log(write_log(folder / "rewritten.jsonl", systems))
    return int(find_provenance(data.trace, 16, capacity=capacity).hit_tokens.sum())


def mend(text, some=MIXED):
    """Return a system text as a person would mend it, who knows what was planted."""
    lines, moved = text.split("\n"), []
    marks = {"user_name_first": "The user", "timestamp_first": "Current time", "uuid_middle": "Session"}
    for defect, mark in marks.items():
        if defect in some:
            moved += [line for line in lines if line.startswith(mark)]
            lines = [line for line in lines if not line.startswith(mark)]
    if "tools_shuffled" in some:
        at = lines.index("Tools:") + 1
        lines[at : at + 5] = sorted(lines[at : at + 5], key=lambda line: re.search(r"tool_\d", line)[0])
    return "\n".join([*lines, *moved])


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found_and_won(tmp_path, open_log, lint_log, defect):
    systems = make_systems(defect, N)
    facts, rows = lint_log(write_log(tmp_path / "log.jsonl", systems))
    expected = count_hits(open_log, tmp_path, list(map(mend, systems))) - facts["hit_tokens"]
    assert facts["recoverable_tokens"] == pytest.approx(expected, rel=0.01)
    assert [NAMES[one["kind"]] for one in facts["sites"]] == [defect] * (defect in MIXED)
    assert rows["hit_tokens_after"].sum() - rows["hit_tokens"].sum() == facts["recoverable_tokens"]
    assert all(one["message"] == 0 and one["proved"] for one in facts["sites"])


@pytest.mark.parametrize("timed", [True, False])
def test_gains_of_mixed_defects_add_up_greedily(tmp_path, open_log, lint_log, timed):
    systems = make_systems("mixed", N)
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", systems, timed=timed))
    order = [NAMES[one["kind"]] for one in facts["sites"]]
    assert sorted(order) == sorted(MIXED)
    won = [one["recoverable_tokens"] for one in facts["sites"]]
    assert sum(won) == facts["recoverable_tokens"] and won == sorted(won, reverse=True)
    for k, one in enumerate(facts["sites"]):
        sets = order[:k], order[: k + 1], [order[k]]
        before, after, alone = (
            count_hits(open_log, tmp_path, [mend(text, some) for text in systems]) for some in sets
        )  # fmt: skip
        expected = after - before, alone - facts["hit_tokens"]
        assert (one["recoverable_tokens"], one["alone_tokens"]) == pytest.approx(expected, rel=0.01)


def test_the_expected_logs():
    if not (SHARED / "expected" / "linter.json").exists():
        pytest.skip("the expected logs are not there")
    for defect, won in {"clean": 0, "timestamp_first": 587_328, "timestamp_last": 0, "user_name_first": 13_248}.items():
        data = open_data(Parameters(data=str(SHARED / "expected" / f"linter_{defect}.jsonl.gz")), progress=False)
        assert lint(data, progress=False)[0]["recoverable_tokens"] == won


def all_four(k):
    return system(first=[name(k), stamp(k)], middle=[session(k)], tools=shuffled_tools(k))


@pytest.mark.parametrize(
    ("make", "kinds"),
    [(lambda k: system(first=[stamp(k), session(k)]), {"time", "uuid"}), (all_four, set(NAMES))],
)
def test_values_one_behind_the_other_are_won_together(tmp_path, open_log, lint_log, make, kinds):
    systems = [make(k) for k in range(N)]
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", systems))
    assert {one["kind"] for one in facts["sites"]} == kinds
    expected = count_hits(open_log, tmp_path, list(map(mend, systems))) - facts["hit_tokens"]
    assert facts["recoverable_tokens"] == sum(one["recoverable_tokens"] for one in facts["sites"])
    assert facts["recoverable_tokens"] == pytest.approx(expected, rel=0.01)


def test_a_bounded_cache_wins_what_its_replay_says(tmp_path, open_log, lint_log):
    systems = make_systems("user_name_first", N)
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", systems), capacity=400)
    before, after = (count_hits(open_log, tmp_path, some, 400) for some in (systems, list(map(mend, systems))))
    assert facts["bounded_recoverable_tokens"] == pytest.approx(after - before, rel=0.01)
    assert before < facts["hit_tokens"]


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_calls_with_defects(tmp_path, lint_log, api):
    clean, _ = lint_log(make_calls(tmp_path / "clean.jsonl", api=api))
    assert clean["recoverable_tokens"] == 0 and clean["sites"] == []
    (time,) = lint_log(make_calls(tmp_path / "stamped.jsonl", api=api, text=stamped))[0]["sites"]
    assert time["kind"] == "time" and "end of the last message, behind tools and history" in time["fix"]
    # the stamp ends the last message, so of each history the message that was last is new
    assert 0.9 * clean["hit_tokens"] < time["recoverable_tokens"] < clean["hit_tokens"] + 24 * 32
    facts, _ = lint_log(make_calls(tmp_path / "tools.jsonl", api=api, tools=shuffled))
    (order,) = facts["sites"]
    assert order["kind"] == "order of tools" and order["message"] is None and order["where"] == "the list of tools"
    assert facts["hit_tokens"] + order["recoverable_tokens"] == clean["hit_tokens"]


def test_a_history_that_is_rewritten(tmp_path, lint_log):
    clean, _ = lint_log(make_calls(tmp_path / "clean.jsonl"))
    facts, _ = lint_log(make_calls(tmp_path / "cleared.jsonl", edit=clear_results))
    (cleared,) = facts["sites"]
    assert cleared["kind"] == "rewritten history" and "prompts grow by" in cleared["fix"]
    assert facts["hit_tokens"] + cleared["recoverable_tokens"] == clean["hit_tokens"]


@pytest.mark.parametrize("edit", [compact, keep_last])
def test_a_history_of_which_messages_are_gone(tmp_path, lint_log, edit):
    facts, _ = lint_log(make_calls(tmp_path / "shorter.jsonl", edit=edit))
    (gone,) = facts["sites"]
    assert gone["recoverable_tokens"] is None and not gone["proved"] and "left out or summed up" in gone["reason"]
    assert facts["recoverable_tokens"] == 0 and gone["estimated_tokens"] > 0 and "an estimate" in gone["fix"]


def test_a_template_that_refuses_leaves_an_estimate(tmp_path, lint_log, monkeypatch):
    def refuse(*_):
        raise TemplateRefusal("no system message")

    log = write_log(tmp_path / "log.jsonl", make_systems("timestamp_first", 20))
    facts, _ = lint_log(log)  # tokenised before the template refuses
    assert facts["recoverable_tokens"] > 0
    monkeypatch.setattr("kvprefix.tokens.calls.render_prompt", refuse)
    facts, _ = lint_log(log)
    (site,) = facts["sites"]
    assert facts["recoverable_tokens"] == 0 and site["recoverable_tokens"] is None
    assert "no system message" in site["fix"] and site["estimated_tokens"] > 0


def test_the_study_keeps_what_lint_finds(tmp_path, small_folder):
    log = write_log(tmp_path / "log.jsonl", make_systems("mixed", 40), timed=False)
    workload = load_workload(Parameters(data=str(log), tokenizer=str(small_folder)), progress=False)
    facts, rows = study_lint(workload)
    again, same = study_lint(workload)
    assert facts == again and rows.equals(same) and len(rows) == facts["requests"] == 40
    won = [one["recoverable_tokens"] for one in facts["sites"]]
    assert len(won) == 4 and sum(won) == facts["recoverable_tokens"]
    assert facts["recoverable_tokens"] > 0 and {"site", "estimated_tokens", "hit_tokens_after"} <= set(rows)


def test_a_date_that_the_template_writes(tmp_path):
    template = "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y') }}<|im_end|>\n" + QWEN_TEMPLATE
    tokenizer = save_small_tokenizer(tmp_path / "dated", template)
    log = make_calls(tmp_path / "days.jsonl", sessions=8, steps=2, tools=lambda k: [], every_s=40_000)
    data = open_data(Parameters(data=str(log), tokenizer=str(tokenizer)), progress=False)
    facts, _ = lint(data, progress=False)
    (site,) = facts["sites"]
    assert (site["kind"], site["where"], site["message"]) == ("date", "what the template writes", None)
    same = make_calls(tmp_path / "hours.jsonl", sessions=8, steps=2, tools=lambda k: [], every_s=10)
    data = open_data(Parameters(data=str(same), tokenizer=str(tokenizer)), progress=False)
    plain, _ = lint(data, progress=False)
    assert facts["hit_tokens"] + site["recoverable_tokens"] == plain["hit_tokens"] and plain["sites"] == []


def test_what_the_template_writes_anew_is_an_estimate(tmp_path):
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if loop.last %}[last] {% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = save_small_tokenizer(tmp_path / "last", template)
    log = tmp_path / "chats.jsonl"
    said = [{"from": who, "value": f"{rule(k)} {who}"} for k in range(3) for who in ("human", "gpt")]
    log.write_text("".join(json.dumps({"conversations": said}) + "\n" for _ in range(2)))
    data = open_data(Parameters(data=str(log), tokenizer=str(tokenizer)), progress=False)
    facts, _ = lint(data, progress=False)
    (site,) = facts["sites"]
    assert site["kind"] == "template" and not site["proved"] and facts["recoverable_tokens"] == 0
    assert ["[last]" in one for one in site["both_sides"]] == [False, True]


def test_tools_that_some_calls_lack_go_behind_those_that_all_have(tmp_path, lint_log):
    def some(k):
        return [one for n, one in enumerate(tool(n) for n in range(4)) if n != 1 or k % 3]

    clean, _ = lint_log(make_calls(tmp_path / "clean.jsonl", steps=1, sessions=12, tools=some))
    (site,) = clean["sites"]
    assert site["kind"] == "order of tools" and site["recoverable_tokens"] > 0


def test_what_one_user_edits_is_no_site(tmp_path, lint_log):
    texts = [rule(1), *(f"Draft {k}. {rule(1)} {rule(2)}" for k in range(3))]
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in texts]
    few, more = tmp_path / "few.jsonl", tmp_path / "more.jsonl"
    few.write_text("\n".join(lines[:3]) + "\n")
    more.write_text("\n".join(lines) + "\n")
    assert lint_log(few)[0]["sites"] == []
    assert [one["message"] for one in lint_log(more)[0]["sites"]] == [0]


def test_sessions_of_block_ids_are_refused():
    with pytest.raises(InputError, match="ids.jsonl: ids say no texts"):
        study_lint(SimpleNamespace(dataset={"path": "ids.jsonl"}))


def write_firsts(path, make, n=40):
    """Write a log whose system texts begin with a line of each request."""
    return write_log(path, [system(first=[make(k)]) for k in range(n)])


def test_a_sentence_says_what_was_moved(tmp_path, lint_log):
    log = write_firsts(tmp_path / "log.jsonl", lambda k: f"You talk to {NAMES_OF[k % 8]} Meier (u{k % 8}@example.org).")
    (site,) = lint_log(log)[0]["sites"]
    assert set(site["kinds"]) == {"name", "email"} and site["kind"] == site["kinds"][0]
    assert site["fix"].startswith("Move line 1 of the system message, in which an e-mail address and a name change, to")
    assert site["example"] == "You talk to <name> (<e-mail>)."


def owned(k):
    keys = {"mail": f"u{k}@x.org", "owner": NAMES_OF[k % 8], "lang": "de"}
    return "Of " + json.dumps(dict(sorted(keys.items(), reverse=k % 2)))


def spaced(k):
    return f"You help {NAMES_OF[k % 8]}{' ' * (1 + k % 2)}{NAMES_OF[-k % 8]}."


def listed(k):
    return "\n".join(sorted(["- owner Ana Meier", f"- city {NAMES_OF[k % 8]}", "- lang de"], reverse=k % 2))


@pytest.mark.parametrize("make", [owned, spaced, listed])
def test_no_site_shows_a_name(tmp_path, lint_log, make):
    facts, _ = lint_log(write_firsts(tmp_path / "log.jsonl", make))
    assert facts["sites"] and not re.search("|".join([*NAMES_OF, "Meier"]), json.dumps(facts))


def test_a_history_shows_no_text(tmp_path, lint_log):
    log = make_calls(tmp_path / "log.jsonl", edit=clear_results)
    (site,) = lint_log(log)[0]["sites"]
    assert not any("Result" in one or "cleared" in one or "customer" in one for one in site["both_sides"])


def test_values_of_one_label_are_one_site(tmp_path, open_log, lint_log):
    users = ["|pipe|", "tock", "<b>1</b>", "\u65e5\u672c", "\U0001f98a fox", "Ana Li"]

    def line(k):
        return f"User: {users[k % 6]} / ticket {users[k % 6]}-{k // 6}"

    facts, _ = lint_log(write_firsts(tmp_path / "log.jsonl", line))
    (site,) = facts["sites"]
    assert site["example"].startswith("User: ") and "/ ticket" in site["example"] and site["requests"] == 40
    assert not any(user in json.dumps(facts, ensure_ascii=False) for user in users)
    systems = [system(last=[line(k)]) for k in range(40)]
    assert site["recoverable_tokens"] == pytest.approx(
        count_hits(open_log, tmp_path, systems) - facts["hit_tokens"], rel=0.01
    )


def test_one_conversation_is_no_site_and_two_are(tmp_path, lint_log):
    for some, found in (([20], []), ([20, 30], ["time"])):
        systems = [system(first=[stamp(k)] if k in some else []) for k in range(40)]
        sites = lint_log(write_log(tmp_path / f"{len(some)}.jsonl", systems))[0]["sites"]
        assert [one["kind"] for one in sites] == found
    assert sites[0]["example"].startswith("Current time: 2026-xx-xx") and sites[0]["requests"] == 2


def test_what_is_in_brackets_moves_without_the_text_behind_it(tmp_path, open_log, lint_log):
    def make(k, moved):
        inside, text = f"({session(k)[:-1]} is open)", system(middle=["Here it goes on: the rules."])
        return f"{text}\n{inside}" if moved else text.replace("Here it", f"{inside} Here it")

    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", [make(k, moved=False) for k in range(40)]))
    (site,) = facts["sites"]
    expected = count_hits(open_log, tmp_path, [make(k, moved=True) for k in range(40)]) - facts["hit_tokens"]
    assert site["recoverable_tokens"] == pytest.approx(expected, rel=0.01)
    assert site["fix"].startswith(
        "Move what is in brackets in line 10 of the system message, in which an id changes, to"
    )


def write_talks(path, change, first="Go."):
    """Write a log of calls with their replies, which the next call sends back changed."""

    def reply(session, step):
        return f"<think>\nHm {session}.\n</think>\n\nIt  is {rule(10 * session + step)}  "

    lines = []
    for step in range(4):
        for one in range(6):
            asked = [
                {"role": "system", "content": system()},
                {"role": "user", "content": first.format(10 * step + one)},
            ]
            for k in range(step):
                back = {"role": "assistant", "content": change(reply(one, k))}
                asked += [back, {"role": "user", "content": question(9 * one + k)}]
            said = {"role": "assistant", "content": reply(one, step)}
            line = {"custom_id": f"r{step}-{one}", "session_id": f"s{one}", "url": "/v1/chat/completions"}
            lines.append(line | {"start_time": 1.7e9 + 60 * step + one, "body": {"model": "m", "messages": asked},
                                 "response": {"choices": [{"message": said}]}})  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("change", [str.strip, lambda said: said.split("</think>")[1].strip()])
def test_a_reply_that_is_sent_back_in_another_form(tmp_path, lint_log, change):
    clean, _ = lint_log(write_talks(tmp_path / "clean.jsonl", str), outputs=True)
    assert clean["sites"] == []
    log = write_talks(tmp_path / "log.jsonl", change)
    facts, _ = lint_log(log, outputs=True)
    (site,) = facts["sites"]
    assert site["kind"] == "rewritten history" and site["where"].startswith("reply of the model (message 2)")
    assert facts["hit_tokens"] + site["recoverable_tokens"] == clean["hit_tokens"] and site["requests"] == 18
    assert ("whitespace" in site["kinds"]) == (change is str.strip) and "%" not in site["fix"]
    assert lint_log(log)[0]["sites"] == []  # without cached replies nothing is lost


def test_a_rewritten_message_is_named(tmp_path, lint_log):
    facts, _ = lint_log(write_talks(tmp_path / "log.jsonl", str, first="It is 08:{:02}. Go on, Ana."))
    (site,) = facts["sites"]
    assert site["where"] == "message of the user (message 1), sent in another form than before"
    assert site["kinds"] == ["rewritten history", "time"] and (site["values"], site["changes"]) == (18, 17)
    assert "above all message 1, in which a time stamp changes: " in site["fix"] and "Ana" not in json.dumps(facts)


def test_the_sentence_says_how_tools_are_ordered(tmp_path, lint_log):
    def some(k):
        return [one for n, one in enumerate(tool(n) for n in range(4)) if n != 1 or k % 3]

    for tools, said in (
        (some, "Put the tools that only some requests have last"),
        (shuffled, "Write the tools in one"),
    ):
        (site,) = lint_log(make_calls(tmp_path / "log.jsonl", steps=1, sessions=12, tools=tools))[0]["sites"]
        assert site["fix"].startswith(said)


def rules_in_any_order(k):
    """Return a system text whose middle has lines of one sentence or two, in an order of the request."""
    lines = [f"{f'Case {n} is open. ' * (n % 2)}{rule(n + 20)}" for n in range(6)]
    return system(middle=random.Random(k).sample(lines, len(lines)))


def with_an_empty_line(k):
    return system().replace("\nRule 3", "\n\nRule 3" if k % 2 else "\nRule 3")


@pytest.mark.parametrize(
    ("make", "best", "kind"), [(rules_in_any_order, 0, "order of lines"), (with_an_empty_line, 0, "whitespace")]
)
def test_a_form_is_won_as_if_all_had_it(tmp_path, open_log, lint_log, make, best, kind):
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", [make(k) for k in range(30)]))
    expected = count_hits(open_log, tmp_path, [make(best)] * 30) - facts["hit_tokens"]
    assert [one["kind"] for one in facts["sites"]] == [kind] and facts["recoverable_tokens"] == expected > 0


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (shuffled_tools, "order of tools", "Write the tools in one order"),
        (lambda k: [dict(sorted(tool(n).items(), reverse=k % 2)) for n in range(5)], "order of keys", "Write the keys"),
        (
            lambda k: [dict(sorted(one.items(), reverse=k % 2)) for one in shuffled_tools(k)],
            "order of tools",
            "Write the tools and their keys in one order",
        ),
    ],
)
def test_tools_as_json_in_a_text(tmp_path, lint_log, change, kind, said):
    systems = [system(middle=[f"Use these: {json.dumps(change(k))}"], tools=[]) for k in range(30)]
    (site,) = lint_log(write_log(tmp_path / "log.jsonl", systems))[0]["sites"]
    assert site["kind"] == kind and site["fix"].startswith(said)


def test_of_chats_each_turn_is_a_request(tmp_path, lint_log):
    def ask(k):
        return [{"role": "user", "content": question(k)}, {"role": "assistant", "content": f"I will, {k}."}]

    with open(tmp_path / "chats.jsonl", "w") as file:
        for k in range(20):
            messages = [one for n in range(3) for one in ask(100 * k + n)]
            messages = [{"role": "system", "content": system(first=[stamp(k)])}, *messages]
            file.write(json.dumps({"messages": messages}) + "\n")
    facts, _ = lint_log(tmp_path / "chats.jsonl")
    (site,) = facts["sites"]
    assert (facts["requests"], site["requests"], site["values"]) == (60, 60, 20) and 20 < site["changes"] < 60


def test_percentages_are_of_the_log_as_it_is(tmp_path, lint_log):
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", make_systems("timestamp_first", 30)))
    after = (facts["hit_tokens"] + facts["recoverable_tokens"]) / facts["prompt_tokens"]
    before = facts["hit_tokens"] / facts["prompt_tokens"]
    assert (
        f": {100 * after:.1f} % of the prompt tokens are cached instead of {100 * before:.1f} %"
        in facts["sites"][0]["fix"]
    )
