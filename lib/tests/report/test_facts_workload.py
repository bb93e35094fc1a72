"""What went in, in sentences and tables: number by number."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from said import make_stats, missing, said_of, says

from kvprefix.report.captions import state_clock
from kvprefix.report.facts import workload as facts_workload
from kvprefix.report.rounding import percent, seconds
from kvprefix.traces.clock import Causal


def test_shares_and_times_are_rounded_in_the_unit_that_reads_best():
    shares = [0, 0.4059, 0.99949, 1, 0.000501, None]
    assert [percent(one) for one in shares] == ["0.0 %", "40.6 %", "99.9 %", "100.0 %", "0.1 %", "–"]
    times = [0.834, 9.94, 10, 113.4, 599.4, 600, 5430, None]
    expected = ["0.83 s", "9.9 s", "10 s", "113 s", "599 s", "10 min", "90 min", "–"]
    assert [seconds(one) for one in times] == expected


def test_what_was_read_is_said():
    dataset = make_stats()["multi_turn"]["dataset"]
    tokenizer = {"has_template": False, "name": "tok", "encoder": "tokenizers 1.0"}
    text = said_of(facts_workload.facts_load, dataset, tokenizer)
    assert not missing(
        text, "1,500 ~ records read ~ 1,334 ~ conversations used", "no_messages ~ 140 ~ first ~ record 3: a",
        "unknown_speaker ~ 26 ~ first ~ record 5: b", "byte ~ 7,654,300 ~ after the ~ 1,500 ~ whole",
        "blank messages dropped ~ 31 ~ ids made unique ~ 42", "23 ~ conversations equal", "tokenizer tok has no",
        "encoded by tokenizers 1.0 ~ faster encoder",
    )  # fmt: skip
    assert "leading assistant" not in text


def test_the_dataset_s_card():
    stats = make_stats()
    text = said_of(facts_workload.facts_dataset, stats)
    assert not missing(
        text, "7,654,321 ~ bytes, SHA-256 ~ 0123456789abcdef…", "cut at byte ~ 7,654,300",
        "1,500 ~ read ~ 140 ~ no_messages ~ 26 ~ unknown_speaker ~ 1,334 ~ conversations used ~ 1,400 ~ asked",
        "31 ~ blank messages dropped ~ 42 ~ ids made unique ~ 23 ~ conversations equal ~ kept", "fedcba9876543210…",
        "2,345 ~ multi-turn requests ~ 1,000,000 ~ prompt tokens ~ 54,321 ~ generated tokens ~ 17 ~ no reply",
    )  # fmt: skip
    assert "its own chat template" in text and "leading assistant" not in text
    multi = stats["multi_turn"]
    multi["dataset"] |= {"cut_at_byte": None, "skipped": {}}
    multi["parameters"] |= {"max_conversations": None, "drop_duplicates": True, "tokenizer_has_template": False}
    text = said_of(facts_workload.facts_dataset, stats)
    assert not missing(text, "the file is whole", "skipped: none", "used (all)", "23 ~ equal ~ dropped")
    assert "plain fallback" in text
    multi["dataset"]["read_to_end"] = False
    assert "as far as needed" in said_of(facts_workload.facts_dataset, stats)


@pytest.mark.parametrize(
    "arrivals, said, clock",
    [
        ("poisson", ["Poisson process of ~ 3.5 ~ per second"], "3.5 ~ conversations/s, causal clock"),
        ("gamma:4.25", ["3.5 ~ per second ~ gamma ~ 4.25"], "3.5 ~ conversations/s (gamma: ~ 4.25 ~ causal"),
        ("weibull:0.75", ["3.5 ~ per second ~ Weibull ~ variation ~ 0.75"], "3.5 ~ conversations/s (weibull: ~ 0.75"),
        ("day", ["a working day, ~ 3.5 ~ per second on the day's average"], "3.5 ~ conversations/s (day), causal"),
        ("day:rates.txt", ["follows rates.txt, ~ 3.5 ~ per second on the day's"], "3.5 ~ (day:rates.txt), causal"),
        ("clients:1200:6:1.5", ["1,200 ~ 3.5 ~ per second", "variation ~ 6", "j^-1.5"], "3.5 ~ conversations"),
        ("stamps:times.txt", ["the times that times.txt holds"], "stamps of times.txt, causal clock"),
    ],
)  # fmt: skip
def test_how_conversations_start(arrivals, said, clock):
    stats = make_stats()
    parameters = stats["multi_turn"]["parameters"]
    parameters["arrivals"] = arrivals
    assert not missing(facts_workload.facts_method(stats)["starts"], *said)
    assert not missing(state_clock(parameters), clock)


def test_the_method():
    stats = make_stats()
    parameters = stats["multi_turn"]["parameters"]
    parameters |= {"think_median_s": 42.5, "think_sigma": 1.25, "ttft_s": 0.7, "time_per_output_token_s": 0.04}
    assert not missing(
        said_of(facts_workload.facts_method, stats),
        "3.5 ~ per second", "0.7 ~ s to the first token ~ 0.04 ~ s per generated token",
        "lognormal ~ median ~ 42.5 ~ s, sigma ~ 1.25", "Seed ~ 7", "full blocks of ~ 32 ~ tokens",
        "(L - 1) / 32) blocks",
    )  # fmt: skip
    for think, said in (("exponential", "exponential ~ median ~ 42.5 ~ s"), ("constant", "think time of ~ 42.5 ~ s"),
                        ("data:t.txt", "drawn from t.txt")):  # fmt: skip
        parameters["think"] = think
        assert says(said_of(facts_workload.facts_method, stats), said)
        assert says(state_clock(parameters), f"{think} think time")
    parameters["clock"] = "at_once"
    assert "naive clock `at_once`" in said_of(facts_workload.facts_method, stats)
    assert "at_once clock" in state_clock(parameters)


def test_the_table_of_what_was_read():
    dataset = make_stats()["multi_turn"]["dataset"]
    expected = [
        ("records read", 1500), ("skipped: no messages", 140), ("skipped: unknown speaker", 26),
        ("conversations used", 1334), ("repaired: blank messages dropped", 31),
        ("repaired: leading assistant dropped", 0), ("repaired: ids made unique", 42),
        ("equal to an earlier conversation", 23), ("records broken off at the file's end", 1),
    ]  # fmt: skip
    assert set(expected) <= set(facts_workload.tabulate_load(dataset).itertuples(index=False, name=None))
    whole = facts_workload.tabulate_load({**dataset, "cut_at_byte": None})
    assert whole["count"].tolist()[-1] == 0
    assert len(facts_workload.tabulate_load({**dataset, "read_to_end": False})) == len(whole) - 1


def test_how_many_turns():
    # 200 conversations: 50 of 1 turn, 100 of 2, 49 of 4, one of 40: 486 turns. The longest 2 have 44 of them.
    sizes = [1] * 50 + [2] * 100 + [4] * 49 + [40]
    requests = pd.DataFrame({"conversation_index": np.repeat(np.arange(200), sizes)})
    assert not missing(
        said_of(facts_workload.facts_turns, requests),
        "200 ~ conversations ~ 486 ~ turns ~ 2.43 ~ on average ~ 2 ~ median ~ 40 ~ at most",
        "25.0 % ~ single turn", "hundredth ~ 9.1 %",
    )  # fmt: skip


def test_when_requests_arrive():
    # Until 50 s: 4 of 4 single-turn and 6 of 10 multi-turn requests.
    traces = {
        "single_turn": SimpleNamespace(arrival_s=np.array([0, 10, 20, 50.0])),
        "multi_turn": SimpleNamespace(arrival_s=np.array([0, 10, 20, 30, 40, 50, 60, 200, 700, 5400.0])),
    }
    assert not missing(
        said_of(facts_workload.facts_arrivals, traces),
        "4 ~ conversations starts after ~ 50 ~ s ~ 0.08 ~ single-turn ~ 0.12 ~ multi-turn",
        "40.0 % ~ come later", "last request arrives after ~ 90 ~ min",
    )  # fmt: skip


def test_which_turns_come_too_early():
    # The first reply takes 0.5 + 100 * 0.03 = 3.5 s: a turn at 2 s comes before its end; the one at 100 s does not.
    requests = pd.DataFrame({
        "conversation_index": [0, 0, 0, 1, 1], "turn": [0, 1, 2, 0, 1], "arrival_s": [0, 2, 100, 5, 30.0],
        "output_tokens": [100, 100, 9, 100, 9],
    })  # fmt: skip
    assert facts_workload.facts_causality(SimpleNamespace(requests=requests), Causal()) == {"later": 3, "early": 1}
    early = said_of(facts_workload.facts_causality, SimpleNamespace(requests=requests), Causal())
    assert says(early, "1 ~ of ~ 3 ~ later turns")
    late = requests.assign(arrival_s=[0, 4, 100, 5, 30.0])
    none = said_of(facts_workload.facts_causality, SimpleNamespace(requests=late), Causal())
    assert says(none, "None of the ~ 3 ~ later turns")
    slow = Causal(ttft_s=1.1)  # 1.1 + 3 = 4.1 s
    assert says(said_of(facts_workload.facts_causality, SimpleNamespace(requests=late), slow), "1 ~ of ~ 3")


def test_the_table_of_parameters():
    rows = facts_workload.list_parameters(make_stats()).set_index("parameter")["value"].to_dict()
    assert rows["seed"] == "7" and rows["block_size"] == "32" and rows["arrival_rate"] == "3.5"
    assert rows["drop_duplicates"] == "false" and rows["max_conversations"] == "1400"
    assert rows["version of numpy"] == "9.8.7" and rows["tokenizer_has_template"] == "true" and "versions" not in rows
    stats = make_stats()
    stats["multi_turn"]["parameters"]["max_conversations"] = None
    rows = facts_workload.list_parameters(stats).set_index("parameter")["value"]
    assert rows["max_conversations"] == "all"
