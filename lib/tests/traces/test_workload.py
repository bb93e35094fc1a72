import json
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import samples
from samples import record, write_records

from kvprefix.conversations.chats import read_conversations
from kvprefix.files.paths import InputError, atomic_path, write_bytes
from kvprefix.files.sealed import SEAL
from kvprefix.tokens import parts as parts_module
from kvprefix.tokens.encoder import find_version
from kvprefix.tokens.template import open_chat
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.arrivals import Gamma, Poisson
from kvprefix.traces.clock import Causal
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.parquet import write_trace
from kvprefix.traces.workload import Workload, load_workload, make_trace, tokenize

RECORDS = [
    record(
        *[f"Question {k}.{m} about blocks" if m % 2 == 0 else f"Answer {k}.{m}" for m in range(1 + k % 5)],
        id=f"r{k}",
    )
    for k in range(12)
]
PART = 3  # conversations: 12 records are 4 parts


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts_module, "PART_CONVERSATIONS", PART)


@pytest.fixture
def parameters(tmp_path, small_folder):
    return Parameters(data=str(write_records(tmp_path / "data.json", RECORDS)), tokenizer=str(small_folder))


@pytest.fixture
def encoded_parts(monkeypatch):
    """Return a list that fills with the name of each part that is tokenised."""
    names, write = [], parts_module._write_part

    def write_part(encoded, file):
        names.append(file.name)
        return write(encoded, file)

    monkeypatch.setattr(parts_module, "_write_part", write_part)
    return names


def trace_bytes(parameters, folder, mode="multi_turn"):
    """Return a trace's Parquet file as bytes."""
    write_trace(make_trace(load_workload(parameters, progress=False), mode), folder / "trace.parquet")
    return (folder / "trace.parquet").read_bytes()


@pytest.fixture
def undisturbed(parameters, tmp_path, monkeypatch):
    """Return the trace of a run that nothing disturbs, made in a derived folder of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("KVPREFIX_DERIVED", str(tmp_path / "undisturbed"))
        return trace_bytes(parameters, tmp_path)


def parts_in(derived):
    return sorted(derived.glob("tokens-*/part-*.arrow"))


def forget_joined(derived):
    """Remove what the parts were joined to, so that the next load reads the parts."""
    for folder in derived.glob("tokens-*/joined-*"):
        shutil.rmtree(folder)


def temporaries_in(derived):
    return [path for path in derived.rglob(".*") if path.name != SEAL]


def test_counts_add_up(bundled_workload):
    dataset = bundled_workload.dataset
    assert dataset["conversations"] == 300
    assert dataset["records_read"] == 300 + sum(dataset["skipped"].values())
    requests = bundled_workload.requests
    assert requests["conversation_index"].unique().tolist() == list(range(300))
    messages = {index: bundled_workload.messages.read(index) for index in range(300)}
    for index, count in zip(requests["conversation_index"], requests["messages"], strict=True):
        assert messages[index][count - 1].role == "user"
    n_user = sum(message.role == "user" for index in messages for message in messages[index])
    assert len(requests) == n_user


def test_modes_of_one_workload(bundled_workload):
    single, multi = make_trace(bundled_workload, "single_turn"), make_trace(bundled_workload, "multi_turn")
    assert (single.requests["turn"] == 0).all()
    assert len(single) == 300 and len(multi) == len(bundled_workload.requests)
    first_turns = multi.requests[multi.requests["turn"] == 0].reset_index(drop=True)
    assert first_turns.equals(single.requests)
    for trace in (single, multi):
        assert (trace.requests["arrival_s"].diff().dropna() >= 0).all()
        for i, row in enumerate(trace.requests.itertuples()):
            assert row.request_id == f"c{row.conversation_index}t{row.turn}"
            assert (row.prompt_tokens, row.output_tokens) == (len(trace.prompt(i)), len(trace.generated(i)))
    in_conversation = multi.requests.groupby("conversation_index")["turn"]
    assert all(turns.tolist() == list(range(len(turns))) for _, turns in in_conversation)


def test_a_workload_has_no_clock_and_any_makes_a_trace(bundled_workload):
    workload = tokenize(read_conversations("bundled", max_conversations=300), progress=False)
    assert type(workload) is Workload and not hasattr(workload, "parameters")
    for made, mode in (
        (workload.single_turn(Poisson(2.0), seed=0), "single_turn"),
        (workload.multi_turn(Poisson(2.0), Causal(), seed=0), "multi_turn"),
    ):
        trace = make_trace(bundled_workload, mode)
        assert made.requests.equals(trace.requests) and made.rows.tolist() == trace.rows.tolist()
        assert made.info["mode"] == trace.info["mode"] == mode
        assert made.info["parameters"].items() <= trace.info["parameters"].items() | {("clock", "at_once")}
    assert trace.info["parameters"] == bundled_workload.parameters.describe_requests()
    given = workload.multi_turn(Gamma(3.0, cv=4.0), Causal(think_median_s=7), seed=5)
    changes = {"arrivals": "gamma:4", "arrival_rate": 3.0, "think_median_s": 7, "seed": 5}
    experiment = replace(bundled_workload, parameters=replace(bundled_workload.parameters, **changes))
    assert given.requests.equals(make_trace(experiment, "multi_turn").requests)
    assert changes.items() <= given.info["parameters"].items()
    with pytest.raises(InputError, match="seed is -1"):
        workload.single_turn(Poisson(2.0), seed=-1)


def test_a_workload_travels_as_the_path_of_its_files(bundled_workload):
    workload = tokenize(read_conversations("bundled", max_conversations=300), progress=False)
    for one in (workload, bundled_workload):
        copy = pickle.loads(pickle.dumps(one))
        assert type(copy) is type(one) and copy.source == one.source and copy.requests.equals(one.requests)
    assert copy.parameters.seed == bundled_workload.parameters.seed


def test_requests_that_tie_come_in_order(derived, parameters):
    at_once = Parameters(**parameters.as_dict() | {"clock": "at_once"})
    with pytest.warns(UserWarning, match="at_once"):
        requests = make_trace(load_workload(at_once, progress=False), "multi_turn").requests
    keys = list(requests[["arrival_s", "conversation_index", "turn"]].itertuples(index=False))
    assert keys == sorted(keys)


def test_unknown_mode_is_refused(bundled_workload):
    with pytest.raises(InputError, match="mode 'both' is not known; known: single_turn, multi_turn"):
        make_trace(bundled_workload, "both")


@pytest.mark.parametrize("mode", ["single_turn", "multi_turn"])
def test_equal_seeds_give_equal_files(derived, parameters, tmp_path, monkeypatch, mode):
    first = trace_bytes(parameters, tmp_path, mode)
    assert trace_bytes(parameters, tmp_path, mode) == first
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "another"))
    assert trace_bytes(parameters, tmp_path, mode) == first
    other = make_trace(load_workload(Parameters(**parameters.as_dict() | {"seed": 1}), progress=False), mode)
    assert other.requests["arrival_s"].nunique() == len(other)
    times = make_trace(load_workload(parameters, progress=False), mode).arrival_s
    assert not set(times) & set(other.arrival_s)


@pytest.mark.parametrize(
    "change", [{}, {"block_size": 32}, {"seed": 5}, {"arrival_rate": 0.5}, {"think_sigma": 0.1}]
)
def test_second_load_does_not_tokenise(derived, parameters, monkeypatch, change):
    load_workload(parameters, progress=False)
    monkeypatch.setattr("kvprefix.tokens.template.open_chat", None)
    loaded = load_workload(Parameters(**parameters.as_dict() | change), progress=False)
    assert len(loaded.requests) == sum(
        1 + k % 5 // 2 for k in range(12)
    )  # 1 + k % 5 messages, the odd ones users'


def test_more_conversations_encode_only_the_new_parts(derived, parameters, encoded_parts):
    load_workload(Parameters(**parameters.as_dict() | {"max_conversations": 2 * PART}), progress=False)
    assert len(encoded_parts) == 2
    load_workload(parameters, progress=False)
    assert len(encoded_parts) == len(set(encoded_parts)) == 4


def test_what_determines_the_tokens_makes_them_anew(derived, parameters, tmp_path, encoded_parts):
    load_workload(parameters, progress=False)
    longer = samples.save_small_tokenizer(tmp_path / "longer", samples.QWEN_TEMPLATE + "{{- 'x' }}")
    changed = load_workload(Parameters(**parameters.as_dict() | {"tokenizer": str(longer)}), progress=False)
    assert len(encoded_parts) == 8
    plain = load_workload(parameters, progress=False)
    assert (changed.requests["prompt_tokens"] == plain.requests["prompt_tokens"] + 1).all()
    write_records(tmp_path / "data.json", [record("Another first question"), *RECORDS[1:]])
    assert (
        load_workload(parameters, progress=False).tokens.prompt(0).tolist() != plain.tokens.prompt(0).tolist()
    )
    assert len(encoded_parts) == 9  # only the first part holds other messages


def test_copy_under_another_name_keeps_its_own_name(derived, parameters, tmp_path):
    load_workload(parameters, progress=False)
    copy = write_records(tmp_path / "copy.json", RECORDS)
    loaded = load_workload(Parameters(**parameters.as_dict() | {"data": str(copy)}), progress=False)
    assert loaded.dataset["name"] == "copy.json"


def test_run_that_fails_midway_resumes(
    derived, parameters, tmp_path, monkeypatch, undisturbed, encoded_parts
):
    def fail_at_the_third(path, data):
        if path.suffix == ".arrow" and len(parts_in(derived)) == 2:
            with atomic_path(path) as temporary:
                temporary.write_bytes(b"half a part")
                raise RuntimeError("killed")
        write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "write_bytes", fail_at_the_third)
        with pytest.raises(RuntimeError, match="killed"):
            load_workload(parameters, progress=False)
    assert len(parts_in(derived)) == 2 and not temporaries_in(derived)
    encoded_parts.clear()
    assert trace_bytes(parameters, tmp_path) == undisturbed
    assert len(encoded_parts) == 2
    assert len(parts_in(derived)) == 4 and not temporaries_in(derived)


KILLED_RUN = """
import os, signal, sys, threading
from kvprefix.tokens import parts
from kvprefix.traces import workload
from kvprefix.files.paths import atomic_path
from kvprefix.traces.parameters import Parameters

lock, written, write_bytes = threading.Lock(), [], parts.write_bytes

def die_at_the_third(path, data):
    with lock:
        if len(written) == 2:
            with atomic_path(path) as temporary:
                temporary.write_bytes(b"half a part")
                os.kill(os.getpid(), signal.SIGKILL)
        write_bytes(path, data)
        written.append(path)

parts.PART_CONVERSATIONS, parts.write_bytes = int(sys.argv[3]), die_at_the_third
workload.load_workload(Parameters(data=sys.argv[1], tokenizer=sys.argv[2]), progress=False)
"""


def test_killed_run_resumes(derived, parameters, tmp_path, undisturbed, encoded_parts):
    command = [sys.executable, "-c", KILLED_RUN, parameters.data, parameters.tokenizer, str(PART)]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    n_kept = len(parts_in(derived))
    assert n_kept == 2
    encoded_parts.clear()
    assert trace_bytes(parameters, tmp_path) == undisturbed
    assert len(encoded_parts) == 4 - n_kept


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-1]]
)
def test_cut_part_is_made_again(derived, parameters, tmp_path, undisturbed, encoded_parts, capsys, damage):
    load_workload(parameters, progress=False)
    part = parts_in(derived)[1]
    whole = part.read_bytes()
    part.write_bytes(damage(whole))
    forget_joined(derived)
    encoded_parts.clear()
    assert trace_bytes(parameters, tmp_path) == undisturbed
    assert f"{part.name}: this cached file was cut, altered" in capsys.readouterr().out
    assert len(encoded_parts) == 1 and part.stem.startswith(encoded_parts[0])
    assert part.read_bytes() == whole


def test_part_that_is_gone_is_made_again(derived, parameters, tmp_path, undisturbed, capsys):
    load_workload(parameters, progress=False)
    parts_in(derived)[0].unlink()
    forget_joined(derived)
    assert trace_bytes(parameters, tmp_path) == undisturbed
    assert "removed; making it again" in capsys.readouterr().out


def test_all_damaged_parts_are_made_again(derived, parameters, tmp_path, undisturbed):
    load_workload(parameters, progress=False)
    for part in parts_in(derived):
        part.write_bytes(b"damaged")
    forget_joined(derived)
    assert trace_bytes(parameters, tmp_path) == undisturbed


def test_flipped_bit_anywhere_in_a_part_changes_nothing(derived, parameters, tmp_path, undisturbed):
    load_workload(parameters, progress=False)
    part = parts_in(derived)[0]
    whole = part.read_bytes()
    wrong = {}
    for position in range(0, len(whole), 41):
        part.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        forget_joined(derived)
        try:
            if trace_bytes(parameters, tmp_path) != undisturbed:
                wrong[position] = "another trace"
        except Exception as error:
            wrong[position] = repr(error)[:60]
    assert wrong == {}


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: "", lambda text: "{}"])
def test_damaged_manifest_is_made_again(derived, parameters, tmp_path, undisturbed, damage):
    load_workload(parameters, progress=False)
    (manifest,) = derived.glob("tokens-*/workload-*.json")
    manifest.write_text(damage(manifest.read_text()))
    assert trace_bytes(parameters, tmp_path) == undisturbed


def test_derived_folder_that_cannot_be_made_is_an_input_error(parameters, tmp_path, monkeypatch):
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "data.json" / "derived"))
    with pytest.raises(InputError, match="data.json/derived"):
        load_workload(parameters, progress=False)


@pytest.mark.parametrize("file", ["encoder-", "part-"])
def test_full_disk_is_an_input_error(derived, parameters, file):
    if find_version() is None and file == "encoder-":
        pytest.skip("this machine has no wheel of the fast encoder")
    if file == "part-":
        open_chat(find_tokenizer(parameters.tokenizer), [])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # stands for a full disk: writing on fails
    try:
        with pytest.raises(InputError, match=f"{file}.*File too large"):
            load_workload(parameters, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not temporaries_in(derived) and not parts_in(derived)


def test_refused_conversations_are_skipped_and_counted(derived, tmp_path):
    alternating = samples.save_small_tokenizer(tmp_path / "alternating", samples.ALTERNATING_TEMPLATE)
    system = {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}]}
    data = write_records(
        tmp_path / "data.json", [*RECORDS[:4], system, {"conversations": []}, *RECORDS[4:6], system]
    )
    loaded = load_workload(Parameters(data=data, tokenizer=alternating), progress=False)
    assert loaded.dataset["skipped"] == {"no_messages": 1, "refused_by_template": 2}
    assert loaded.dataset["conversations"] == 6
    assert loaded.dataset["records_read"] == 9 == 6 + 3
    assert (
        loaded.dataset["first_skipped"]["refused_by_template"]
        == "conversation 4: roles must alternate user/assistant"
    )
    # the index counts the usable ones, so that the refused keep theirs: 4 and 7
    assert loaded.requests["conversation_index"].unique().tolist() == [0, 1, 2, 3, 5, 6]
    messages = {index: loaded.messages.read(index) for index in range(8)}
    assert messages[4] == messages[7] == []
    ids = dict(zip(loaded.requests["conversation_index"], loaded.requests["conversation_id"], strict=True))
    assert {ids[k]: messages[k][0].text for k in ids} == {
        f"r{k}": f"Question {k}.0 about blocks" for k in range(6)
    }
    assert len(make_trace(loaded, "single_turn")) == 6


def test_template_that_refuses_every_conversation_is_an_input_error(derived, tmp_path):
    alternating = samples.save_small_tokenizer(tmp_path / "alternating", samples.ALTERNATING_TEMPLATE)
    system = {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}]}
    data = write_records(tmp_path / "data.json", [system] * 2)
    with pytest.raises(InputError, match="refuses every conversation: roles must alternate"):
        load_workload(Parameters(data=data, tokenizer=alternating), progress=False)


@pytest.mark.parametrize(
    "content, said",
    [
        ('{"conversations": 1}', "among 1 whole records: 1 not_a_conversation"),
        ("[1, 2, 3]", "among 3 whole records: 3 not_a_conversation"),
        ("[]", "among 0 whole records: none read"),
        (
            json.dumps([record("answer", first="gpt")]),
            r"1 no_user_message \(first: record 0: no user message",
        ),
        (json.dumps(RECORDS)[:40], "among 0 whole records: none read; the file is cut at byte 40"),
    ],
)
def test_data_without_a_usable_conversation_is_refused(derived, parameters, tmp_path, content, said):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(InputError, match=f"data.json: no usable conversation .*{said}"):
        load_workload(parameters, progress=False)


def test_malformed_data_leaves_no_manifest(derived, parameters, tmp_path):
    text = json.dumps(RECORDS)
    (tmp_path / "data.json").write_text(text.replace('"id": "r7"', '"id" "r7"'))
    with pytest.raises(InputError, match="data.json: record 7 is not valid JSON"):
        load_workload(parameters, progress=False)
    assert not list(derived.rglob("workload-*")) and not temporaries_in(derived)
    (tmp_path / "data.json").write_text(text)
    assert load_workload(parameters, progress=False).dataset["conversations"] == 12


def test_id_with_half_a_character_loads(derived, parameters, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(record("Question", id="x\ud800")) + "\n")
    assert load_workload(parameters, progress=False).dataset["conversations"] == 1
