"""Requests that run at once: hand cases, a twin of vLLM's scheduler, and what that scheduler answered."""

import json

import numpy as np
import pytest
from engine_twin import Scheduler, small_runs, summarise
from hypothesis import given, settings
from hypothesis import strategies as st
from places import CARRIED, SHARED

from kvprefix.__main__ import main
from kvprefix.engines import request_files as requestfiles
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.vllm import VLLM
from kvprefix.files.arrow_lines import read_fast
from kvprefix.files.paths import InputError
from kvprefix.studies.verify import read_lines, rebuild
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.trace import make_trace_of

FIXTURES = SHARED / "fixtures"
EXPECTED = "sharegpt200_close.sched20ms.bs16.n500.expected.jsonl.gz"


# ---- By hand: blocks of 2, first token after 4 s, then one a second


def overlapping(prompts, outputs, arrival_s, num_gpu_blocks, first_token_s=4):
    prompts, outputs = ([list(map(ord, text)) for text in texts] for texts in (prompts, outputs))
    trace = make_trace_of(prompts, arrival_s, outputs)
    return VLLM(block_size=2, blocks=num_gpu_blocks, overlap=Overlap(first_token_s, 1)).replay(trace)


def test_a_prompt_is_visible_when_it_is_admitted():
    assert overlapping(["abcde", "abcde"], ["", ""], [0, 0], 100).hit_tokens.tolist() == [0, 4]


def test_who_finds_no_room_waits_for_who_came_before():
    # 3 usable. "abcd" holds 2 from 0 s to 4 s (no output). "wxyz" needs 2: waits until 4 s; "m" would fit, but waits.
    result = overlapping(["abcd", "wxyz", "m"], ["", "", ""], [0, 1, 2], 4)
    assert result.admitted_s.tolist() == [0, 4, 4]
    assert result.finished_s.tolist() == [4, 8, 8]


def test_held_blocks_are_not_evicted_and_need_no_room():
    # 3 usable, "abcd" holds 2. "abcde" hits both of them and takes the third: no wait. "abcd" ends at 4 s, but all
    # three are held until "abcde" ends at 5 s: "z" waits until then.
    result = overlapping(["abcd", "abcde", "z"], ["", "", ""], [0, 1, 1], 4)
    assert (result.hit_tokens.tolist(), result.admitted_s.tolist()) == ([0, 4, 0], [0, 1, 5])


def test_hits_that_nobody_holds_need_room_too():
    # 3 usable. "abcd" is gone at 4 s. "w" holds one block from 5 s to 9 s: of [new, cd, ab] the new one.
    # "abcde" hits ab and cd and needs one more: 1 + 2 > 2 free, so it waits until 9 s.
    result = overlapping(["abcd", "w", "abcde"], ["", "", ""], [0, 5, 6], 4)
    assert (result.hit_tokens.tolist(), result.admitted_s.tolist()) == ([0, 0, 4], [0, 5, 9])


def test_a_request_that_grows_takes_the_blocks_of_the_last_one_admitted():
    # 2 usable, one block each. "ab" knows its first token at 4 s and needs a block for it: "x" (admitted later) gives
    # its own back, still without a token. The second token of "ab" comes at 5 s, and it is over; then "x" is admitted
    # again and is done, with its 1 token, at 5 + 4 = 9 s.
    result = overlapping(["ab", "x"], ["cd", "y"], [0, 1], 3)
    assert result.preemptions.tolist() == [0, 1]
    assert (result.admitted_s.tolist(), result.finished_s.tolist()) == ([0, 1], [5, 9])


def test_a_request_is_over_when_its_last_token_comes():
    # "a" has 1 token, at 4 s; "b" has 3, at 4, 5 and 6 s; "c" none: it is over when its prompt is computed.
    result = overlapping(["a", "b", "c"], ["x", "xyz", ""], [0, 0, 0], 100)
    assert result.finished_s.tolist() == [4, 6, 4]


def test_who_is_over_makes_room_for_who_grows_at_that_moment():
    # 2 usable, one block each, a token a second from 1 s on. At 1 s "ab" is over, and "xy" takes its block.
    result = overlapping(["ab", "xy"], ["c", "zz"], [0, 0], 3, first_token_s=1)
    assert (result.preemptions.tolist(), result.finished_s.tolist()) == ([0, 0], [1, 2])


def test_who_is_last_itself_gives_its_own_blocks_back():
    # 3 usable, one block each at 0 s. At 1 s "ab" takes the third for its first token; "xy" needs one for its own, and
    # is the last: it is preempted, with 3 tokens. "ab" takes the block of "xy" at 3 s, evicts it, and is over at 4 s.
    # Then "xy" is admitted, 3 tokens, none of them cached, and gets its tokens 2, 3 and 4 at 5, 6 and 7 s.
    result = overlapping(["ab", "xy"], ["cdef", "zzzz"], [0, 0], 4, first_token_s=1)
    assert (result.preemptions.tolist(), result.finished_s.tolist()) == ([0, 1], [4, 7])
    assert (result.tokens_again, result.cached_again, result.steps) == (3, 0, 7)


def test_who_was_preempted_comes_before_who_arrived_since():
    # 4 usable: 2 are held by "abcd", 2 by "xyz" from 1 s on. At 4 s "abcd" takes one for its first token: "xyz" loses
    # its two, one stays free. "m" fits there, but waits behind "xyz" until "abcd" is over, at 6 s.
    result = overlapping(["abcd", "xyz", "m"], ["efg", "", ""], [0, 1, 4], 5)
    assert (result.preemptions.tolist(), result.admitted_s.tolist()) == ([0, 1, 0], [0, 1, 6])
    assert result.waited_s.tolist() == [0, 0, 2]


def test_arrivals_and_the_first_token_are_rounded_up_to_steps():
    # Steps begin at 10, 11, ... s. Who arrives at 10.5 s takes part from 11 s on, that is no wait; 3.5 s are 4 steps.
    result = overlapping(["a", "b", "c"], ["", "", ""], [10, 10.5, 12], 100, first_token_s=3.5)
    assert result.admitted_s.tolist() == [10, 11, 12]
    assert result.finished_s.tolist() == [14, 15, 16]
    assert result.waited_s.tolist() == [0, 0, 0]
    # 1 usable: "b" waits from 11 s on, until 14 s; "c" from 12 s on, until 18 s.
    result = overlapping(["a", "b", "c"], ["", "", ""], [10, 10.5, 12], 2, first_token_s=3.5)
    assert result.waited_s.tolist() == [0, 3, 6]


@pytest.mark.parametrize("start_s", [0, 0.06, 1.7e9])
def test_times_that_floats_do_not_hold_are_whole_steps(start_s):
    # 0.06 / 0.02 is 3 and 0.58 / 0.02 is 29, whatever floats say, and whenever the clock began.
    arrivals, prefill_steps = Overlap(0.58, 0.02).count_steps(start_s + np.arange(200) * 0.02, 200)
    assert (arrivals.tolist(), prefill_steps) == (list(range(200)), 29)


def run_at_once(prompts, arrival_s, overlap=Overlap()):  # noqa: B008
    return VLLM(overlap=overlap).replay(make_trace_of(prompts, arrival_s))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Overlap().count_steps([1, 2], 1), "1 ascending numbers"),
        (lambda: run_at_once([[1]] * 2, [2, 1]), "2 ascending numbers"),
        (lambda: run_at_once([[1]] * 2, [1, np.nan]), "2 ascending numbers"),
        (lambda: run_at_once([[1]] * 2, [0, 1e300]), r"more than 2\*\*53 steps"),
        (lambda: run_at_once([[1]], [0], Overlap(1e300)), r"more than 2\*\*53 steps"),
        (lambda: run_at_once([[1]], [0, 1]), "arrival_s has 2 entries for 1 prompts"),
        (lambda: Overlap(0.0), "first_token_s is 0.0; expected seconds above 0"),
        (lambda: Overlap(1, np.nan), "time_per_token_s is nan; expected seconds above 0"),
    ],
)
def test_wrong_times_are_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_no_requests_at_all():
    result = VLLM(block_size=2, blocks=10, overlap=Overlap()).replay(make_trace_of([]))
    assert (len(result.admitted_s), result.steps, summarise(result)) == (0, 0, ([], 0, 0))


# ---- The twin


@given(small_runs(), st.data())
@settings(max_examples=1000)
def test_small_overlapping_runs_agree_with_the_twin(run, data):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    arrivals = sorted(data.draw(st.lists(st.integers(0, 12), min_size=len(prompts), max_size=len(prompts))))
    arrivals = [arrival - arrivals[0] for arrival in arrivals]
    prefill_steps = data.draw(st.integers(1, 4))
    check_twin(run, arrivals, prefill_steps)


def check_twin(run, arrivals, prefill_steps):
    """Compare the replay with the twin in all that both tell; return the twin."""
    prompts, outputs, contexts, block_size, size, legacy_free = run
    trace = make_trace_of(prompts, 5 + 0.25 * np.array(arrivals), outputs, cache_salts=contexts)
    version, overlap = "0.22" if legacy_free else "0.32", Overlap(0.25 * prefill_steps, 0.25)
    result = VLLM(version, block_size=block_size, blocks=size, overlap=overlap).replay(trace)
    twin = Scheduler(*run, arrivals, prefill_steps).run()
    steps = [[-1 if np.isnan(at) else 4 * (at - 5) for at in times] for times in (result.admitted_s, result.finished_s)]
    assert steps == [twin.admitted, twin.finished]
    assert (result.preemptions.tolist(), result.steps) == (twin.preemptions, twin.n_steps)
    assert [result.tokens_again, result.cached_again] == twin.again
    assert result.evictions == twin.pool.evictions
    content = twin.pool.content
    assert summarise(result) == (twin.hits, len(set(content.values())), len(content))
    return twin


def test_crowds_agree_with_the_twin():
    # 40 conversations that all want more than there is: preemptions of many at once, and of those that came back.
    generator, most = np.random.default_rng(0), 0
    for _ in range(30):
        n, block_size = 40, int(generator.integers(1, 5))
        prompts = [generator.integers(0, 2, generator.integers(1, 12)).tolist() for _ in range(n)]
        outputs = [generator.integers(0, 2, generator.integers(0, 30)).tolist() for _ in range(n)]
        arrivals = np.sort(generator.integers(0, 60, n))
        size = int(generator.integers(12, 50)) // block_size + 12
        twin = check_twin((prompts, outputs, [""] * n, block_size, size, False), (arrivals - arrivals[0]).tolist(), 1)
        most = max(most, max(twin.preemptions))
    assert most >= 5


@given(small_runs())
def test_requests_far_apart_do_not_overlap(run):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    trace = make_trace_of(prompts, 1000 * np.arange(len(prompts)), outputs, cache_salts=contexts)
    options = {"version": "0.22" if legacy_free else "0.32", "block_size": block_size, "blocks": size}
    alone, apart = (VLLM(**options, overlap=overlap).replay(trace) for overlap in (None, Overlap(0.5, 0.03)))
    assert summarise(apart) == summarise(alone) and apart.evictions == alone.evictions


# ---- What vLLM's scheduler answered


SCHEDULED = ["--concurrent", "--ttft-s", "0.02", "--time-per-output-token-s", "0.02", "--num-gpu-blocks", "500"]


def check_scheduled(source, folder, expected):
    """Replay 893 requests and compare all that vLLM's scheduler told."""
    out = folder / "out.jsonl"
    assert main(["replay", str(source), "--out", str(out), "--block-size", "16", *SCHEDULED]) == 0
    *answers, totals = (json.loads(line) for line in out.read_text().splitlines())
    *expected, expected_totals = read_lines(expected)
    for one in answers:
        one["created_cache_tokens"] = one["num_prompt_tokens"] // 16 * 16 - one["num_cached_tokens"]
    assert sum(ours != theirs for ours, theirs in zip(answers, expected, strict=True)) == 0
    assert len(answers) == 893
    totals, expected = totals["totals"], expected_totals["totals"]
    metrics = {f"metric_{name}": totals[name] for name in ("prefix_cache_queries", "prefix_cache_hits")}
    assert {name: (totals | metrics).get(name) for name in expected} == expected
    assert (expected["preempted_requests"], expected["engine_steps"]) == (403, 28_090)


def test_requests_that_run_at_once_hit_what_they_hit_in_vllm_s_scheduler(tmp_path):
    requests = tmp_path / "requests.jsonl"
    outline = read_lines(CARRIED / "sharegpt200_close.outline.jsonl.gz")
    requests.write_text("".join(json.dumps(one) + "\n" for one in rebuild(outline)))
    check_scheduled(requests, tmp_path, CARRIED / EXPECTED)


@pytest.mark.skipif(not (FIXTURES / EXPECTED).exists(), reason="the recordings are not part of the repository")
def test_the_recorded_requests_hit_what_they_hit_in_vllm_s_scheduler(tmp_path):
    assert (FIXTURES / EXPECTED).read_bytes() == (CARRIED / EXPECTED).read_bytes()
    check_scheduled(FIXTURES / "sharegpt200_close.jsonl.gz", tmp_path, FIXTURES / EXPECTED)


def test_small_crowds_run_as_in_vllm_s_scheduler():
    runs = read_lines(CARRIED / "small_crowds.scheduler.jsonl.gz")
    assert len(runs) == 60
    for run in runs:
        trace = make_trace_of(run["prompts"], 0.02 * np.array(run["arrivals"]), run["outputs"])
        options = {"block_size": run["block_size"], "blocks": run["num_gpu_blocks"], "overlap": Overlap(0.02, 0.02)}
        result = VLLM(**options).replay(trace)
        assert result.hit_tokens.tolist() == run["num_cached_tokens"]
        np.testing.assert_allclose(result.admitted_s, 0.02 * np.array(run["admitted"]))
        np.testing.assert_allclose(result.finished_s, 0.02 * np.array(run["finished"]))
        assert result.preemptions.tolist() == run["preemptions"]
        again = result.tokens_again, result.cached_again, result.steps
        assert again == (run["preempted_queries"], run["preempted_hits"], run["engine_steps"])


# ---- The command

LINES = [
    {"request_id": "a", "timestamp": 100, "prompt_token_ids": [1, 2], "output_token_ids": [3, 4, 5, 6]},
    {"request_id": "b", "timestamp": 100.0, "prompt_token_ids": [7, 8], "output_token_ids": [9, 9, 9, 9]},
    {"request_id": "c", "timestamp": 101, "prompt_token_ids": [7, 8, 9]},
    {"request_id": "d", "timestamp": 9000, "prompt_token_ids": [1] * 7},
]


def run(folder, lines, *options):
    """Run the command on lines, dicts or texts; return its exit code and its answers (None: not written)."""
    source, out = folder / "requests.jsonl", folder / "out.jsonl"
    source.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    code = main(["replay", str(source), "--out", str(out), "--block-size", "2", "--num-gpu-blocks", "4", *options])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else None


def test_the_command_says_what_waited(tmp_path, capsys):
    # As above, in steps of 20 ms: "b" is preempted at step 1, admitted again at step 4 and over at step 7. "c" arrives
    # within step 0, waits from step 1 on behind "b", and is admitted with it: [7, 8] is cached then. "d" never fits.
    options = ["--concurrent", "--ttft-s", "0.02", "--time-per-output-token-s", "0.02"]
    code, (*answers, totals) = run(tmp_path, LINES, *options)
    assert (code, [one["num_cached_tokens"] for one in answers]) == (0, [0, 0, 2, None])
    assert answers[0] == {"request_id": "a", "num_prompt_tokens": 2, "num_cached_tokens": 0}
    assert answers[3]["error"] == "the prompt needs 4 blocks and the pool has 3"
    totals = totals["totals"]
    names = ["mode", "engine_steps", "requests_waited", "preempted_requests", "preempted_queries", "preempted_hits"]
    assert [totals[name] for name in names] == ["scheduler", 7, 1, 1, 3, 0]
    assert "1 waited, 1 preemptions" in capsys.readouterr().out


def test_the_command_has_the_times_of_the_reports(tmp_path):
    times = Parameters().ttft_s, Parameters().time_per_output_token_s
    given = ["--ttft-s", f"{times[0]}", "--time-per-output-token-s", f"{times[1]}"]
    assert run(tmp_path, LINES, "--concurrent") == run(tmp_path, LINES, "--concurrent", *given)
    assert run(tmp_path, LINES, "--concurrent") != run(tmp_path, LINES, "--concurrent", "--ttft-s", "0.1")


@pytest.mark.parametrize("reader", ["fast", "slow"])
def test_both_readers_give_the_same_times(tmp_path, reader):
    # Arrow does not take a number as request_id.
    lines = LINES if reader == "fast" else [{**LINES[0], "request_id": 1}, *LINES[1:]]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (read_fast(path, requestfiles._RequestReader(timed=True)) is None) == (reader == "slow")
    assert requestfiles.read_requests(path, timed=True).arrival_s.tolist() == [0, 0, 0.001, 8.9]


@pytest.mark.parametrize(
    ("timestamp", "said"),
    [
        (None, "lacks timestamp; with --concurrent every line has the milliseconds of its arrival, 0 or more"),
        ("101", 'has timestamp "101"; with --concurrent every line has the milliseconds'),
        ("2026-01-01T00:00:00Z", 'has timestamp "2026-01-01T00:00:00Z"; '),
        (True, "has timestamp true; "),
        ([101], "has timestamp [101]; "),
        (-1, "has timestamp -1; "),
        (float("nan"), "has timestamp NaN; "),
        (float("inf"), "has timestamp Infinity; "),
        (10**400, "has timestamp 1000"),
        (99, "has timestamp 99, after 100.0; expected the order of arrival"),
    ],
)
def test_a_wrong_timestamp_is_named_by_its_line(tmp_path, capsys, timestamp, said):
    lines = [*LINES[:2], "", {**LINES[2], "timestamp": timestamp}, LINES[3]]
    assert run(tmp_path, lines, "--concurrent") == (2, None)
    error = capsys.readouterr().err
    assert f"requests.jsonl: line 4 {said}" in error and error.count("\n") == 1 and len(error) < 400
    assert run(tmp_path, lines)[0] == 0  # one after the other, times are not read


def test_a_file_without_timestamps_is_named_by_its_first_line(tmp_path, capsys):
    lines = [{name: value for name, value in line.items() if name != "timestamp"} for line in LINES]
    assert run(tmp_path, lines, "--concurrent") == (2, None)
    assert "line 1 lacks timestamp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ttft-s", "1"], "--ttft-s has a meaning only with --concurrent"),
        (["--time-per-output-token-s", "1"], "--time-per-output-token-s has a meaning only with --concurrent"),
        (["--concurrent", "--ttft-s", "0"], "--ttft-s is '0'; expected seconds above 0"),
        (["--concurrent", "--ttft-s", "nan"], "--ttft-s is 'nan'; expected seconds above 0"),
        (["--concurrent", "--time-per-output-token-s", "-1"], "--time-per-output-token-s is '-1'; expected seconds"),
        (["--concurrent", "--time-per-output-token-s", "soon"], "--time-per-output-token-s is 'soon'"),
        (["--concurrent", "--time-per-output-token-s", "1e-300"], "are more than 2**53 steps of 1e-300 s"),
        (["--concurrent", "--engine", "sglang"], "--concurrent is a rule of vLLM's"),
    ],
)
def test_wrong_options_are_refused(tmp_path, capsys, options, said):
    assert run(tmp_path, LINES, *options) == (2, None)
    assert said in capsys.readouterr().err
