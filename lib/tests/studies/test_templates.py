"""What behaviours of templates cost: the carried numbers, a twin in plain Python, and what cannot be measured."""

import json
import math

import numpy as np
import pytest
import samples
from call_logs import make_log
from places import CARRIED, SAMPLE
from session_files import make_sessions

from kvprefix.files.paths import InputError
from kvprefix.studies.experiment import load_study
from kvprefix.studies.table import draw_trace
from kvprefix.studies.templates import measure_templates, study_templates
from kvprefix.traces.behaviours import BEHAVIOURS, encode_behaviour, list_told, open_workload_chat
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

MODES = json.loads((CARRIED / "templates.json").read_text())["modes"]
COUNTS = ["hit_tokens", "prompt_tokens", "computed_tokens"]


@pytest.fixture(scope="module")
def real():
    table = study_templates(load_workload(Parameters(max_conversations=500), progress=False))
    return table.set_index(["behaviour", "outputs"])


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("name", MODES)
def test_carried_numbers(real, name, outputs):
    expected = MODES[name]["outputs cached" if outputs else "prompts only"]
    found = real.loc[(name, outputs)]
    if name == "keep":  # with other reasoning
        assert found["computed_tokens"] == pytest.approx(expected["computed_tokens"], rel=0.01)
    else:
        assert found[COUNTS].tolist() == [expected[one] for one in COUNTS]
    assert found["token"] == pytest.approx(found["hit_tokens"] / found["prompt_tokens"])


def test_what_a_reader_is_told(real):
    ratio, computed = real["ratio"], real["computed_tokens"]
    assert ratio[("strip", True)] == pytest.approx(2.65, abs=0.01)
    for name in ("strip", "strip_gen_think", "empty_think", "system_in_last", "tools_in_last"):
        assert computed[(name, True)] == computed[(name, False)]
    for name in {one.reference for one in BEHAVIOURS.values()}:
        assert computed[(name, True)] < computed[(name, False)] and ratio[(name, True)] == 1
    assert ratio[("minute_stamp", True)] > ratio[("date_daily", True)] > 1
    known = real[real["ratio"] != 1]
    assert (known["ratio_low"] < known["ratio"]).all() and (known["ratio"] < known["ratio_high"]).all()
    mean = real["computed_tokens"] / real["requests"]
    assert (real["low"] < mean).all() and (mean < real["high"]).all() and (real["conversations"] == 500).all()


@pytest.fixture(scope="module")
def small():
    return load_workload(Parameters(data=str(SAMPLE), block_size=4), progress=False)


def count_computed(told, tokens, order, size, outputs):
    """Count the computed tokens of all requests block by block, with a set of whole prefixes."""
    stored, computed = set(), 0
    for k in order:
        prompt = tokens.prompt(k).tolist()
        n = 0
        while n + size < len(prompt) and tuple(prompt[: n + size]) in stored:
            n += size
        computed += len(prompt) - n
        kept = prompt + (tokens.generated(k).tolist()[:-1] if outputs else [])
        stored |= {tuple(kept[:end]) for end in range(size, len(kept) + 1, size)}
    return computed


@pytest.mark.parametrize("reference", ["keep", "none", "system_first"])
def test_a_twin_counts_the_same(small, reference):
    found = measure_templates(small, reference, 6).set_index(["behaviour", "outputs"])["computed_tokens"]
    trace = draw_trace(small)
    frame = trace.requests[trace.requests["conversation_index"] < 6].sort_values(["conversation_index", "turn"])
    told, chat = list_told(small, frame), open_workload_chat(small)
    assert len(told) == 6 and len(found) == 2 * sum(one.reference == reference for one in BEHAVIOURS.values())
    for (name, outputs), computed in found.items():
        tokens = encode_behaviour(BEHAVIOURS[name], told, chat)
        assert computed == count_computed(told, tokens, np.argsort(frame["arrival_s"], kind="stable"), 4, outputs), name


def test_a_template_that_refuses_a_behaviour(tmp_path):
    refuses = samples.QWEN_TEMPLATE.replace(
        "{%- for", "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{%- endif %}{%- for", 1
    )
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", refuses)
    data = samples.write_records(tmp_path / "a.json", [samples.record("Hello", "Hi", "Why?", "So.")] * 2)
    table = study_templates(load_workload(Parameters(data=str(data), tokenizer=str(folder)), progress=False))
    refused = table[table["refused"] != ""]
    assert set(refused["behaviour"]) == {"date_daily", "minute_stamp"} and set(refused["refused"]) == {"no system"}
    assert (refused["computed_tokens"] == 0).all() and refused["ratio"].map(math.isnan).all()
    assert (table.drop(refused.index)["computed_tokens"] > 0).all()


def test_data_without_conversations_of_text(tmp_path):
    make_log(tmp_path / "calls.jsonl")
    with pytest.raises(InputError, match="templates: the data are calls of a server"):
        study_templates(load_workload(Parameters(data=str(tmp_path / "calls.jsonl")), progress=False))
    make_sessions(tmp_path / "sessions.jsonl")
    with pytest.raises(InputError, match="templates: the trace lists block ids"):
        study_templates(load_study(Parameters(data=str(tmp_path / "sessions.jsonl"))))
