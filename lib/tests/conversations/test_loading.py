"""From other people's data files to what is said of them: what was lost, what was not kept, what is no file."""

import json
import os
import shutil

import pytest
from logs import read_log_trace
from places import SHARED
from said import said_of
from samples import record, save_small_tokenizer, write_records

from kvprefix.conversations.load import iterate_conversations, locate_data
from kvprefix.files.jsonlines import number_lines
from kvprefix.files.paths import InputError
from kvprefix.models.memory import load_model
from kvprefix.report.facts.workload import facts_load, tabulate_load
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.timing_files import read_stamps
from kvprefix.traces.workload import load_workload, make_trace

LATE = SHARED / "cases" / "late-refusal"


@pytest.fixture
def picky(tmp_path, bundled_folder):
    """Return the folder of a tokenizer whose template insists on roles that take turns."""
    shutil.copytree(LATE / "mistral-alternate", tmp_path / "picky", copy_function=shutil.copyfile)
    os.chmod(tmp_path / "picky", 0o755)
    shutil.copyfile(bundled_folder / "tokenizer.json", tmp_path / "picky" / "tokenizer.json")
    return tmp_path / "picky"


def test_turns_before_a_refused_one_stay_and_the_rest_is_counted(picky):
    workload = load_workload(Parameters(data=str(LATE / "data.jsonl"), tokenizer=str(picky)), progress=False)
    # the first conversation has 2 user messages; the second has 5, of which the last follows another one
    requests = workload.requests
    assert list(zip(requests["conversation_index"], requests["turn"], requests["messages"], strict=True)) == [
        (0, 0, 1), (0, 1, 3), (1, 0, 1), (1, 1, 3), (1, 2, 5), (1, 3, 7)
    ]  # fmt: skip
    assert (workload.dataset["conversations"], workload.dataset["skipped"]) == (2, {})
    assert workload.dataset["repaired"]["turns_refused_by_template_dropped"] == 1
    said = "turns refused by template dropped: 1 (first: conversation 1, turn 4: roles have to take turns)"
    assert said in said_of(facts_load, workload.dataset, workload.tokenizer)
    assert ["repaired: turns refused by template dropped", 1] in tabulate_load(workload.dataset).values.tolist()


def test_data_and_a_log_of_its_requests_lose_the_same_turns(picky, tmp_path):
    parameters = Parameters(data=str(LATE / "data.jsonl"), tokenizer=str(picky))
    trace = make_trace(load_workload(parameters, progress=False), "multi_turn")
    lines = [
        {
            "request_id": f"c{index}t{turn}",
            "timestamp": 10 * turn + index,
            "messages": [{"role": m.role, "content": m.text} for m in one.messages[:end]],
        }
        for index, one in enumerate(iterate_conversations(LATE / "data.jsonl"))
        for turn, end in enumerate(one.request_ends())
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log_trace(tmp_path / "log.jsonl", str(picky), progress=False)
    assert len(lines) == 7 and "1 request refused by the chat template" in " ".join(log.info["log"]["notes"])
    prompts = [
        {name: one.prompt(i).tolist() for i, name in enumerate(one.requests["request_id"])} for one in (trace, log)
    ]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 6


def test_what_is_not_kept_is_said(tmp_path, small_folder):
    records = [record("question", "answer", id=k) for k in range(3)]
    for one in records:
        one["timestamp"] = 1714567890
        one["conversations"][1]["createTime"] = "2024-05-01"
    records[0] |= {"model": "m"}
    records[1]["conversations"][1]["score"] = 1
    data = write_records(tmp_path / "data.json", records)
    workload = load_workload(Parameters(data=str(data), tokenizer=str(small_folder)), progress=False)
    said = said_of(facts_load, workload.dataset, workload.tokenizer).splitlines()
    times = "3 of 3 records have `timestamp`, 3 of 6 messages have `createTime`"
    assert f"{times}; not used: arrivals are as the parameters say." in said
    assert "Not kept: `model` of 1 of 3 records, `score` of 1 of 6 messages." in said
    table = dict(tabulate_load(workload.dataset).values.tolist())
    assert table["not kept: `timestamp` of records"] == 3 and table["not kept: `score` of messages"] == 1


def test_nothing_is_said_where_all_is_kept(tmp_path, small_folder):
    data = write_records(tmp_path / "data.json", [record("question", "answer", id="a")])
    workload = load_workload(Parameters(data=str(data), tokenizer=str(small_folder)), progress=False)
    assert "not_kept" not in workload.dataset
    assert "kept" not in said_of(facts_load, workload.dataset, workload.tokenizer)


def _tokenizer_with(name, pipe):
    folder = save_small_tokenizer(pipe.parent / "tokenizer")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(pipe)
    return find_tokenizer(folder)


@pytest.mark.parametrize("node", ["pipe", "device"])
@pytest.mark.parametrize(
    "read",
    [
        locate_data,
        lambda path: list(iterate_conversations(path)),
        lambda path: list(number_lines(path)),
        lambda path: read_log_trace(path, progress=False),
        lambda path: read_stamps(path, 1),
        lambda path: load_model(str(path)),
        lambda path: _tokenizer_with("chat_template.jinja", path),
        lambda path: _tokenizer_with("additional_chat_templates/other.jinja", path),
    ],
)
def test_pipes_and_devices_are_refused_wherever_a_file_is_read(tmp_path, read, node):
    path = tmp_path / "node"
    os.mkfifo(path) if node == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=f": is a {node}, not a file"):
        read(path)
