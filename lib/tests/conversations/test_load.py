import json

import pytest
from places import SHARED
from samples import record, write_records

from kvprefix.conversations.load import LoadCounts, digest_messages, iterate_conversations, locate_data
from kvprefix.conversations.records import join_text_parts
from kvprefix.files.paths import InputError

CASES = SHARED / "cases"
U, A = "question", "answer"


@pytest.fixture
def load(tmp_path):
    """Return a function from records to conversations and counts, which must add up."""

    def load(records, **options):
        path = write_records(tmp_path / "data.json", records)
        counts = LoadCounts()
        conversations = list(iterate_conversations(path, counts=counts, **options))
        assert len(conversations) == counts.conversations
        assert counts.records_read == counts.conversations + sum(counts.skipped.values())
        return conversations, counts

    return load


def texts(conversations):
    return [[message.text for message in conversation.messages] for conversation in conversations]


def openai(*messages, **more):
    return {"messages": [{"role": role, "content": content} for role, content in messages], **more}


def beside(name, value):
    """Return a record whose reply has another field beside its text."""
    given = openai(("user", U), ("assistant", A))
    given["messages"][1][name] = value
    return given


def text_part(text):
    return {"type": "text", "text": text}


def test_both_forms_and_all_speakers_give_three_roles(load):
    speakers = ["system", "human", "gpt", "user", "chatgpt", "USER", "bing", "Human", "bard"]
    sharegpt = {"conversations": [{"from": speaker, "value": "x"} for speaker in speakers]}
    roles = ["developer", "user", "assistant"]
    (first, second), _ = load([sharegpt, openai(*[(role, "x") for role in roles])])
    assert [m.role for m in first.messages] == ["system", *["user", "assistant"] * 4]
    assert [m.role for m in second.messages] == ["system", "user", "assistant"]
    assert first.request_ends() == [2, 4, 6, 8]


def test_content_parts_are_joined(load):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    conversations, _ = load([openai(("user", parts), ("assistant", [{"type": "text", "text": A}]))])
    assert texts(conversations) == [["one \ntwo", A]]


def test_text_parts_are_joined_as_vllm_does():
    # vllm 0.32, renderers/chat_utils.py: "\n".join(texts); a null text is left out, plain texts are parts too
    parts = ["a", text_part("b "), {"type": "input_text", "text": " c"}, {"type": "refusal", "refusal": "d"}]
    assert join_text_parts([*parts, text_part(None), text_part("")]) == "a\nb \n c\nd\n"
    assert join_text_parts([text_part("alone")]) == "alone"
    assert join_text_parts([]) == ""
    with pytest.raises(ValueError, match="^with_images$"):
        join_text_parts([text_part("a"), {"type": "image_url", "image_url": {"url": "x"}}])


def read_case(name, **options):
    if not CASES.is_dir():
        pytest.skip("no cases beside the project")
    counts = LoadCounts()
    return list(iterate_conversations(CASES / name, counts=counts, **options)), counts


def test_a_system_field_is_the_first_message():
    beside, counts = read_case("system-beside/data.jsonl")
    as_message, _ = read_case("system-beside/data_as_message.jsonl")
    assert [c.messages for c in beside] == [c.messages for c in as_message]
    assert len(beside) == counts.repaired["system_field_made_first_message"] > 0


@pytest.mark.parametrize(
    "fields, messages, systems, made, beside",
    [
        ({"system": "s"}, [], ["s"], 1, 0),
        ({"system_prompt": "p"}, [], ["p"], 1, 0),
        ({"system": "s", "system_prompt": "p"}, [], ["s", "p"], 2, 0),
        ({"system": "s", "system_prompt": "s"}, [], ["s"], 1, 0),
        ({"system": "s"}, ["m"], ["s", "m"], 1, 1),  # both stay
        ({"system": "m"}, ["m"], ["m"], 0, 0),
        ({"system": "", "system_prompt": None}, [], [], 0, 0),
        ({"system": " \n"}, [], [], 0, 0),
    ],
)
def test_system_fields_beside_system_messages(load, fields, messages, systems, made, beside):
    given = openai(*[("system", text) for text in messages], ("user", U), **fields)
    (one,), counts = load([given])
    assert [m.text for m in one.messages] == [*systems, U]
    assert counts.repaired["system_field_made_first_message"] == made
    assert counts.repaired["system_field_beside_a_system_message"] == beside
    assert "not_kept" not in counts.as_dict()


@pytest.mark.parametrize(
    "name, skipped",
    [("anthropic_system", "with_system_blocks"), ("tools_top", "with_tools"), ("toolcall_text", "with_tools")],
)
def test_what_cannot_be_rendered_is_skipped_and_counted(name, skipped):
    conversations, counts = read_case(f"fields-dropped/{name}.jsonl")
    assert (conversations, counts.skipped) == ([], {skipped: 3})


def test_conversations_under_other_system_texts_are_no_duplicates():
    conversations, counts = read_case("fields-dropped/dupsys.jsonl", drop_duplicates=True)
    assert (len(conversations), counts.exact_duplicates) == (4, 0)


def test_reasoning_is_counted_as_not_kept():
    conversations, counts = read_case("fields-dropped/reasoning.jsonl")
    plain, clean = read_case("fields-dropped/plain.jsonl")
    assert [c.messages for c in conversations] == [c.messages for c in plain]
    not_kept = counts.as_dict()["not_kept"]
    assert (not_kept["records"], not_kept["messages"]) == (3, 12)
    assert set(not_kept["message_fields"]) == {"reasoning_content"} and not_kept["record_fields"] == {}
    assert "not_kept" not in clean.as_dict()


def test_fields_that_are_not_kept_are_counted_by_name(load):
    part = text_part(U) | {"cache_control": {"type": "ephemeral"}}
    records = [
        {"id": 1, "timestamp": 5, "model": "m", "note": "", "messages": [{"role": "user", "content": U, "name": "n"}]},
        {"id": 2, "timestamp": 6, "conversation_id": "c", "tools": [], **openai(("user", [part]))},
        {"timestamp": 7, "conversations": [], "model": "skipped"},
        {"id": 3, "a\x1b[`": 1, "conversations": [{"from": "human", "value": U, "role": "user", "content": "other"}]},
    ]
    _, counts = load(records)
    assert counts.as_dict()["not_kept"] == {
        "records": 3, "record_fields": {"timestamp": 2, "a???": 1, "conversation_id": 1, "model": 1},
        "messages": 3, "message_fields": {"content": 1, "content: cache_control": 1, "name": 1, "role": 1},
    }  # fmt: skip


def test_at_most_forty_names_are_kept(load):
    _, counts = load([{"id": k, f"field {k}": 1, **record(U)} for k in range(100)])
    fields = counts.as_dict()["not_kept"]["record_fields"]
    assert len(fields) == 41 and fields["further names"] == 60


def test_parts_of_a_split_record_under_another_system_stay_apart(load):
    records = [{**record("u0", "a0", id="x_0"), "system": "s"}, {**record("u1", id="x_2"), "system": "t"}]
    assert texts(load(records, rejoin_split=True)[0]) == [["s", "u0", "a0"], ["t", "u1"]]
    records[1]["system"] = "s"
    assert texts(load(records, rejoin_split=True)[0]) == [["s", "u0", "a0", "u1"]]


def test_a_reply_without_text_is_blank(load):
    conversations, counts = load([openai(("user", U), ("assistant", None), ("user", "again"))])
    assert texts(conversations) == [[U, "again"]]
    assert counts.repaired["blank_messages_dropped"] == 1


@pytest.mark.parametrize("name", ["array-values/nan.json", "array-values/u64.json"])
def test_values_that_do_not_matter_are_read_in_an_array_as_in_lines(name):
    conversations, counts = read_case(name)
    assert conversations == read_case("array-values/bigint.jsonl")[0]
    assert sum(counts.as_dict()["not_kept"]["record_fields"].values()) == 1


@pytest.mark.parametrize(
    "bad, reason",
    [
        ({"id": "x"}, "not_a_conversation"),
        ({"conversations": "text"}, "not_a_conversation"),
        ([], "not_a_conversation"),
        (7, "not_a_conversation"),
        (None, "not_json"),
        ({"conversations": []}, "no_messages"),
        ({"conversations": ["text"]}, "malformed_message"),
        ({"conversations": [{"from": "human"}]}, "malformed_message"),
        ({"conversations": [{"value": U}]}, "malformed_message"),
        ({"conversations": [{"from": "human", "value": 3}]}, "malformed_message"),
        ({"conversations": [{"from": None, "value": U}]}, "malformed_message"),
        (openai(("user", None)), "malformed_message"),
        (openai(("user", U), system=7), "malformed_system"),
        (openai(("user", U), system=[{"type": "text", "text": "rules"}]), "with_system_blocks"),
        (openai(("user", U), tools=[{"type": "function"}]), "with_tools"),
        (openai(("user", U), functions=[{"name": "f"}]), "with_tools"),
        (openai(("user", U), images=["a.png"]), "with_images"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "<image> " + U}]}, "with_images"),
        (beside("tool_calls", [{"id": "c"}]), "with_tools"),
        (beside("function_call", {"name": "f"}), "with_tools"),
        (beside("images", ["a.png"]), "with_images"),
        (openai(("user", U), ("assistant", None)) | {"tools": "[{}]"}, "with_tools"),
        ({"messages": [{"role": "user", "content": U}, {"role": "assistant", "tool_calls": [{}]}]}, "with_tools"),
        (openai(("user", [text_part(U), {"type": "image_url", "image_url": {"url": "x"}}])), "with_images"),
        (openai(("user", [{"image_url": {"url": "x"}, "detail": "low"}])), "with_images"),
        (openai(("user", [text_part(U), {"type": "image", "source": {}}])), "with_images"),
        (openai(("user", U), ("assistant", [text_part(A), {"type": "tool_use", "id": "t"}])), "with_tools"),
        (openai(("user", [{"type": "tool_result", "content": A}])), "with_tools"),
        (openai(("user", U), ("assistant", [{"type": "thinking", "thinking": "hm"}])), "with_thinking"),
        (openai(("user", [{"type": "input_audio", "input_audio": {}}])), "with_other_content"),
        (openai(("user", [{"type": ["text"], "text": U}])), "with_other_content"),
        (openai(("user", [U, 3])), "with_other_content"),
        (openai(("user", "ab " * 2**23)), "too_long"),
        (
            {"conversations": [{"from": "human", "value": U}, {"from": "alien", "value": A}]},
            "unknown_speaker",
        ),
        (openai(("user", U), ("tool", A)), "unknown_speaker"),
        (record(A, first="gpt"), "no_user_message"),
        (record(" \n", A), "no_user_message"),
    ],
)
def test_record_that_is_of_no_use_is_skipped_by_reason(load, bad, reason):
    conversations, counts = load([record(U, A, id="good"), bad, record(U, id="good too")])
    assert [conversation.id for conversation in conversations] == ["good", "good too"]
    assert counts.skipped == {reason: 1}
    assert counts.first_skipped[reason].startswith("record 1: ")


def test_line_that_is_no_json_is_counted(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(record(U)) + "\n{broken\n" + json.dumps(record(U)) + "\n")
    counts = LoadCounts()
    assert len(list(iterate_conversations(path, counts=counts))) == 2
    assert (counts.records_read, counts.skipped) == (3, {"not_json": 1})


def test_blank_and_leading_assistant_messages_are_dropped_and_counted(load):
    messages = [
        ("gpt", "greeting"),
        ("system", "rules"),
        ("gpt", "again"),
        ("human", " "),
        ("human", U),
        ("gpt", "\n"),
    ]
    given = {"conversations": [{"from": speaker, "value": text} for speaker, text in messages]}
    conversations, counts = load([given])
    assert conversations[0].messages == (("system", "rules"), ("user", U))
    assert counts.repaired["blank_messages_dropped"] == 2
    assert counts.repaired["leading_assistant_messages_dropped"] == 2


def test_text_is_left_as_it_is(load):
    text = "  \u2028 e\u0301 <|im_end|>\r\n\u0000 "
    assert texts(load([record(text)])[0]) == [[text]]


def test_ids_are_made_unique(load):
    given = ["a", "a", "a#2", 7, "7", None, ""]
    records = [record(f"{U} {k}") | ({} if id is None else {"id": id}) for k, id in enumerate(given)]
    records.append({"conversation_id": "named", "messages": [{"role": "user", "content": U}]})
    conversations, counts = load(records)
    ids = [conversation.id for conversation in conversations]
    assert ids == ["a", "a#2", "a#2#2", "7", "7#2", "record-5", "record-6", "named"]
    assert counts.repaired["repeated_ids_renamed"] == 3


@pytest.mark.parametrize("join", ["[{}]", "{}\n"])
def test_lone_surrogates_are_replaced_and_counted(tmp_path, join):
    path = tmp_path / "data.json"
    given = json.dumps(record("a\ud800b\udc00", "pair \U0001f600", "end \ud83d"))
    path.write_text(join.replace("{}", given))
    counts = LoadCounts()
    conversations = list(iterate_conversations(path, counts=counts))
    assert texts(conversations) == [["a\ufffdb\ufffd", "pair \U0001f600", "end \ufffd"]]
    assert counts.repaired["lone_surrogates_replaced"] == 2


def test_exact_duplicates_are_counted_and_dropped_on_request(load):
    records = [record(U, A, id="a"), record(U, id="b"), record(U, A, id="c"), record(U, A, "", id="d")]
    conversations, counts = load(records)
    assert (len(conversations), counts.exact_duplicates, counts.skipped) == (4, 2, {})
    conversations, counts = load(records, drop_duplicates=True)
    assert [conversation.id for conversation in conversations] == ["a", "b"]
    assert (counts.exact_duplicates, counts.skipped) == (2, {"exact_duplicate": 2})


def test_digest_tells_where_messages_end():
    assert digest_messages([("user", "ab"), ("user", "c")]) != digest_messages(
        [("user", "a"), ("user", "bc")]
    )
    assert digest_messages([("user", "a")]) != digest_messages([("assistant", "a")])


def test_max_conversations_takes_the_first_usable_ones(load):
    records = [record(A, first="gpt"), record("one"), {"conversations": []}, record("two"), record("three")]
    conversations, counts = load(records, max_conversations=2)
    assert texts(conversations) == [["one"], ["two"]]
    assert counts.records_read == 4


PARTS = ["u0", "a0", "u1", "a1", "u2", "a2"]


@pytest.mark.parametrize(
    "given, expected",
    [
        # messages 0..3 and 4..5: 0 + 4 - 4 = 0 messages overlap
        ([("x_0", PARTS[:4]), ("x_4", PARTS[4:])], [PARTS]),
        # 0..3 and 3..5: 0 + 4 - 3 = 1 overlaps and is equal
        ([("x_0", PARTS[:4]), ("x_3", PARTS[3:])], [PARTS]),
        # three parts, overlaps of 1 and 2
        ([("x_0", PARTS[:3]), ("x_2", PARTS[2:5]), ("x_3", PARTS[3:])], [PARTS]),
        # 0..3 and 5: a gap of one message
        ([("x_0", PARTS[:4]), ("x_5", PARTS[5:] + ["u3"])], [PARTS[:4], ["u3"]]),
        # the message that overlaps is another one
        ([("x_0", PARTS[:4]), ("x_3", ["other", *PARTS[4:]])], [PARTS[:4], PARTS[4:]]),
        # the first part twice: the second of them goes on
        ([("x_0", PARTS[:4]), ("x_0", PARTS[:4]), ("x_4", PARTS[4:])], [PARTS[:4], PARTS]),
        # another conversation's part, and one that is not next to its first part
        ([("x_0", PARTS[:4]), ("y_4", PARTS[4:]), ("x_4", PARTS[4:])], [PARTS[:4], PARTS[4:], PARTS[4:]]),
        # ids without a number are no parts
        ([("x", PARTS[:4]), ("x_4", PARTS[4:])], [PARTS[:4], PARTS[4:]]),
    ],
)
def test_split_records_are_rejoined(load, given, expected):
    records = [
        {"id": id, "conversations": [{"from": "gpt" if t[0] in "ao" else "human", "value": t} for t in part]}
        for id, part in given
    ]
    conversations, counts = load(records, rejoin_split=True)
    assert texts(conversations) == expected
    joined = len(given) - len(expected)
    assert counts.skipped == ({"joined_to_the_record_before": joined} if joined else {})
    assert conversations[0].id == given[0][0]


def test_rejoined_records_stop_at_max_conversations(load):
    records = [
        record("u0", "a0", id="x_0"),
        record("u1", id="x_2"),
        record("u0", id="y_0"),
        record("u0", id="z_0"),
    ]
    conversations, _ = load(records, rejoin_split=True, max_conversations=1)
    assert texts(conversations) == [["u0", "a0", "u1"]]


def test_data_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent.json: no such file"):
        locate_data(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is a folder"):
        locate_data(tmp_path)
