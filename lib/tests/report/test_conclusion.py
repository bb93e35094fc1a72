"""What a report adds up to: every number is one of the facts, every sentence one of a notebook that ran."""

import copy
import json

import pandas as pd
import pytest

from kvprefix.files.paths import InputError
from kvprefix.report import facts as take
from kvprefix.report.conclusion import conclude, describe_summary, state_limits
from kvprefix.report.section_files import mark_failed, read_facts
from kvprefix.report.sections import Section
from kvprefix.traces.parameters import Parameters

FACTS = {
    "20-prefix-sharing": {
        "conversations": 1200, "records_read": 1300, "records_skipped": 100, "requests": 5001, "token_hit_rate": 0.621,
        "sharing_mean": 0.512, "sharing_median": 0.533, "with_generated": 0.864, "single_token_hit_rate": 0.151,
        "single_sharing_mean": 0.322, "bare_token_hit_rate": 0.086, "bare_sharing_mean": 0.043, "never_reused": 0.394,
        "accesses_if_reused": 3.84, "gap_median_s": 113.0,
    },
    "30-block-size": {"sizes": [16, 1, 512], "rates": [0.62, 0.633, 0.408]},
    "40-cache-size": {"unbounded": 0.622, "half_blocks": 22690.4, "most_blocks": 127033.0},
    "50-eviction": {
        "capacities": [5037, 14393, 41129], "lru": [0.094, 0.230, 0.418], "opt": [0.345, 0.488, 0.593], "tried": 7,
        "better": {},
    },
    "60-timing": {
        "clocks": {"blocks": 2468, "token": {"all turns at once": 0.596, "causal": 0.054}, "separated": 1},
        "rates": {"blocks": 12264, "token": {"0.1 /s": 0.575, "20 /s": 0.111}, "separated": 0},
    },
    "70-engine-check": {"pools": [5000, 20000, 340000], "rates": [0.075, 0.306, 0.840]},
}  # fmt: skip
# 22690.4 blocks of 16 tokens of 131072 bytes: 22690.4 * 2 MiB = 44.3 GiB; 127033 * 2 MiB = 248.1 GiB
SHARING = (
    "62.1 % of the multi-turn prompt tokens are cached (by token, cold start, prompts only). Of the first messages' tokens "
    "alone, without the template, 8.6 % are. So prefix sharing in this traffic is a matter of conversations that go on, "
    "not of common prompts. Keeping generated tokens as well makes it 86.4 % (+24.3 points). A block that is reused at "
    "all is accessed 3.8 times on average; 39.4 % of the distinct blocks are never accessed again. Half of the block "
    "reuses come within 113 s."
)
SAID = {
    "20-prefix-sharing": SHARING,
    "30-block-size": "Without a bound, blocks of 1 token find 63.3 % of the prompt tokens, blocks of 512 40.8 %.",
    "40-cache-size": "With a bound, LRU reaches half of the unbounded 62.2 % with 22,690 blocks (44.3 GiB of "
    "Llama-3.1-8B's KV cache) and 90 % of it with 127,033 (248.1 GiB).",
    "50-eviction": "At the capacities tried, better eviction wins at most 25.8 points: with 14,393 blocks the optimum, which knows the "
    "future, hits 48.8 % and LRU 23.0 %. None of the 7 other policies tried is better than LRU at any capacity.",
    "60-timing": "With 2,468 blocks LRU hits 59.6 % on the clock \"all turns at once\" and 5.4 % on the clock \"causal\". With "
    "12,264 blocks LRU hits 57.5 % where conversations start at 0.1 /s and 11.1 % where conversations start at 20 /s, which "
    "is not separated.",
    "70-engine-check": "vLLM 0.32's rules, with generated tokens cached and requests running at once, hit 7.5 % with "
    "5,000 blocks and 84.0 % with 340,000 blocks.",
}


def change(*path, to):
    """Return FACTS with one of them changed."""
    changed = copy.deepcopy(FACTS)
    within = changed
    for name in path[:-1]:
        within = within[name]
    within[path[-1]] = to
    return changed


def test_what_is_equal_is_said_to_be():
    ends = {"all turns at once": 0.572, "causal": 0.572}
    one = {"60-timing": {"clocks": {"blocks": 5, "token": ends, "separated": 0}, "rates": {"blocks": 5, "token": {}}}}
    assert 'LRU hits 57.2 % on the clock "all turns at once" and on the clock "causal" alike.' in conclude(one, Parameters())


def test_the_conclusion_is_made_of_every_fact():
    sentences = list(SAID.values())
    assert conclude(FACTS, Parameters()) == f"{' '.join(sentences[:2])}\n\n{' '.join(sentences[2:])}"


@pytest.mark.parametrize("name", SAID)
def test_a_section_that_failed_adds_nothing(name):
    whole = conclude(FACTS, Parameters())
    without = conclude({other: one for other, one in FACTS.items() if other != name}, Parameters())
    assert without.split() == whole.replace(SAID[name], "").split()


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("20-prefix-sharing", "token_hit_rate"), 0.16, "16.0 % of the multi-turn prompt tokens are cached (by"),
        (("20-prefix-sharing", "token_hit_rate"), 0.16, "8.6 % are. Keeping generated"),  # no less than half of it
        (("20-prefix-sharing", "token_hit_rate"), 0.18, "18.0 % of the multi-turn prompt tokens are cached (by token, "
            "cold start, prompts only). Of the first messages' tokens alone, without the template, 8.6 % are. So prefix"),
        (("20-prefix-sharing", "with_generated"), 0.6213, "Keeping generated tokens as well changes nothing."),
        (("20-prefix-sharing", "with_generated"), 0.5, "makes it 50.0 % (-12.1 points)"),
        (("20-prefix-sharing", "bare_token_hit_rate"), None, "prompts only). Keeping"),
        (("20-prefix-sharing", "never_reused"), None, "points). Without a bound, blocks"),
        (("20-prefix-sharing", "gap_median_s"), 5400, "come within 90 min."),
        (("30-block-size", "rates"), [0.5, 0.6, 0.4], "blocks of 1 token find 60.0 % of the prompt tokens, blocks of 512 40.0 %"),
        (("30-block-size", "sizes"), [16, 2, 512], "blocks of 2 tokens find"),
        (("40-cache-size", "unbounded"), 0, "\n\nNothing is ever hit, whatever the capacity. At the"),
        (("40-cache-size", "most_blocks"), 512, "90 % of it with 512 (1.0 GiB)."),
        (("50-eviction", "opt"), [0.4, 0.4, 0.4183], "wins at most 30.6 points: with 5,037 blocks"),
        (("50-eviction", "opt"), [0.094, 0.23, 0.418], "Eviction decides nothing here: LRU hits as much as the optimum at"),
        (("50-eviction", "better"), {"LFU": 0.5, "GDSF": 1.25}, "7 other policies tried, better than LRU at some capacity: 2, GDSF by most: +1.25 points."),
        (("50-eviction", "better"), {"a|*b*": 0.5}, r"capacity: 1, a\|\*b\* by most: +0.50 points."),
        (("60-timing", "rates", "separated"), 1, "11.1 % where conversations start at 20 /s. vLLM"),
        (("60-timing", "clocks", "token"), {"causal": 0.054}, "at any capacity. With 12,264 blocks"),
        (("70-engine-check", "rates"), [0.1, 0.2, 0.3], "hit 10.0 % with 5,000 blocks and 30.0 % with 340,000 blocks."),
        (("70-engine-check", "pools"), [], "which is not separated."),
    ],
)  # fmt: skip
def test_a_changed_fact_changes_its_sentence(path, to, said):
    before, after = conclude(FACTS, Parameters()), conclude(change(*path, to=to), Parameters())
    assert said in after and (said not in before or after.endswith(said))


def test_one_pool_and_no_bounded_cache_are_said():
    one = change("70-engine-check", "pools", to=[5000])
    one["70-engine-check"]["rates"] = [0.075]
    assert conclude(one, Parameters()).endswith("running at once, hit 7.5 % with 5,000 blocks.")
    only = {"20-prefix-sharing": FACTS["20-prefix-sharing"]}
    assert conclude(only, Parameters()).endswith("no bounded one was measured in this report.")
    assert conclude({}, Parameters()) == "These rates are those of an unbounded cache: no bounded one was measured in this report."


def test_one_is_one():
    one = change("20-prefix-sharing", "requests", to=1)
    one["20-prefix-sharing"]["conversations"] = 1
    assert "tokens of 1 multi-turn request from 1 conversation, " in describe_summary(one, Parameters(block_size=1))
    assert "in blocks of 1 token that" in describe_summary(one, Parameters(block_size=1))
    one = change("50-eviction", "tried", to=1)
    one["40-cache-size"]["half_blocks"] = one["50-eviction"]["capacities"][1] = one["60-timing"]["rates"]["blocks"] = 1
    one["70-engine-check"]["pools"][0] = 1
    assert conclude(one, Parameters()).count(" 1 block ") == 4 and "the 1 other policy tried" in conclude(one, Parameters())


def test_the_summary_is_of_notebook_20():
    assert describe_summary(FACTS, Parameters(block_size=32)) == (
        "Of the prompt tokens of 5,001 multi-turn requests from 1,200 conversations, **62.1 %** lie in blocks of 32 tokens "
        "that an earlier request had already computed (by token, cold start, prompts only). The average request finds 51.2 % "
        "of its prompt cached (median 53.3 %). With one request per conversation it finds 32.2 %, and 15.1 % of all tokens "
        "are cached (without the tokens that the chat template itself adds, 4.3 % and 8.6 %). With generated tokens cached "
        "too, the multi-turn token hit rate is 86.4 %."
    )
    unknown = change("20-prefix-sharing", "bare_token_hit_rate", to=None)
    assert "15.1 % of all tokens are cached. With generated" in describe_summary(unknown, Parameters())
    del unknown["20-prefix-sharing"]
    assert describe_summary(unknown, Parameters()).startswith("Notebook 20-prefix-sharing handed over no numbers")


@pytest.fixture
def stamps(tmp_path):
    path = tmp_path / "sta`mps.txt"
    path.write_text("0\n1\n")
    return path


def test_limits_are_those_of_this_run(stamps):
    limits = state_limits(FACTS, Parameters())
    assert "The starts of conversations are modelled (`poisson`), not observed. Think times (`lognormal`) and" in limits
    assert "100 of 1,300 records skipped" in limits and "ShareGPT's conversations" in limits
    assert "caches of 30-block-size, 40-cache-size, 50-eviction, 60-timing evict" in limits
    assert "The section on engines applies" in limits and "usable conversation" not in limits

    given = Parameters(data="x.jsonl", arrivals=f"stamps:{stamps}", think=f"data:{stamps}", max_conversations=1000)
    limits = state_limits(change("20-prefix-sharing", "records_skipped", to=0), given)
    assert f"Conversations start at the times that `` {stamps} `` holds. The rates and bursts of 60-timing are" in limits
    assert f"Think times are drawn from `` {stamps} ``, whichever" in limits and "starts of conversations" not in limits
    assert "At most 1,000 usable conversations of the log were read, the first ones." in limits
    assert "skipped" not in limits and "ShareGPT" not in limits

    limits = state_limits({}, Parameters(clock="at_once"))
    assert "The cache is unbounded in the whole report" in limits and "naive clock `at_once`" in limits
    assert "Think times" not in limits and "engines applies" not in limits
    assert "No section applies an engine's rules." in state_limits({"40-cache-size": {}}, Parameters())
    assert all(line.startswith("- ") for line in limits.split("\n"))


# ---- How facts are taken and handed over


def test_facts_are_taken_from_the_studies_tables():
    sizes = pd.DataFrame({"memory_tokens": [None, 512, None], "block_size": [1, 1, 16], "token": [0.6, 0.1, 0.5]})
    assert take.take_block_sizes(sizes) == {"sizes": [1, 16], "rates": [0.6, 0.5]}
    needs = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "share": [0.5, 0.9, 0.95] * 2, "capacity_blocks": [4, 8, 9, 6, 9, 9]})
    assert take.take_capacities(needs, {"token": 0.6}) == {"unbounded": 0.6, "half_blocks": 5, "most_blocks": 8.5}
    policies = pd.DataFrame({
        "blocks": [10, 10, 10, 20, 20, 20], "policy": ["LRU", "LFU", "OPT"] * 2,
        "token hit rate": [0.1, 0.2, 0.4, 0.3, 0.31, 0.4], "against LRU": [0, 10, 30, 0, 1, 10.0],
        "verdict": ["–", "better", "bound"] * 2,
    })  # fmt: skip
    taken = take.take_policies(policies)
    assert taken == {"capacities": [10, 20], "lru": [0.1, 0.3], "opt": [0.4, 0.4], "tried": 1, "better": {"LFU": 10}}
    engines = pd.DataFrame({"case": ["seen", "overlap", "overlap", "overlap"], "pool": [5, 5, 5, 9], "token": [0.9, 0.1, 0.3, 0.4]})
    assert take.take_engines(engines) == {"pools": [5, 9], "rates": [0.2, 0.4]}


def test_timing_s_ends_are_taken_at_a_small_and_a_middle_capacity():
    # 2,048 blocks of 16 tokens are 32,768; of the capacities 512, 2048 and 8192 the middle one is also 2,048
    rows = [
        {"variant": name, "seed": 0, "capacity_blocks": blocks, "token": rate + blocks / 1e6, "low": 0, "high": 1,
         "base_low": 0.1, "base_high": 0.2}
        for name, rate in (("naive", 0.6), ("between", 0.5), ("causal", 0.1)) for blocks in (512, 2048, 8192)
    ]  # fmt: skip
    taken = take.take_timing(pd.DataFrame(rows), pd.DataFrame(rows).assign(base_low=-1), 16)
    assert taken["clocks"]["blocks"] == 2048 and taken["clocks"]["separated"] == 1
    assert taken["clocks"]["token"] == pytest.approx({"naive": 0.602048, "causal": 0.102048})
    assert taken["rates"]["blocks"] == 2048 and taken["rates"]["separated"] == 0
    lower = [{**row, "token": -row["token"], "base_low": -0.2, "base_high": -0.1} for row in rows]
    assert take.take_timing(pd.DataFrame(rows), pd.DataFrame(lower), 16)["rates"]["separated"] == 1


def test_sharing_s_facts_are_those_of_its_statistics():
    # 100 accesses of 40 distinct blocks, a quarter of which are reused: 30 once, so 10 blocks have 70 accesses
    mode = {
        "dataset": {"conversations": 3, "records_read": 5, "skipped": {"a": 1, "b": 1}}, "requests": 4,
        "token_hit_rate": 0.6, "sharing_fraction": {"mean": 0.5, "median": 0.4}, "block_hit_count": {},
        "with_generated_tokens": {"token_hit_rate": 0.8}, "blocks": {"accesses": 100, "distinct": 40},
        "without_template_tokens": {"prompt_tokens": {"total": 9}, "token_hit_rate": 0.2, "sharing_fraction": {"mean": 0.1}},
        "blocks_reused_fraction": 0.25, "reuse_gap_s": {"median": 7.0},
    }  # fmt: skip
    single = {**mode, "token_hit_rate": 0.3, "sharing_fraction": {"mean": 0.25}, "with_generated_tokens": None}
    assert take.take_sharing({"single_turn": single, "multi_turn": mode}) == {
        "conversations": 3, "records_read": 5, "records_skipped": 2, "requests": 4, "token_hit_rate": 0.6,
        "sharing_mean": 0.5, "sharing_median": 0.4, "with_generated": 0.8, "single_token_hit_rate": 0.3,
        "single_sharing_mean": 0.25, "bare_token_hit_rate": 0.2, "bare_sharing_mean": 0.1, "never_reused": 0.75,
        "accesses_if_reused": 7.0, "gap_median_s": 7.0,
    }  # fmt: skip
    none = {**mode, "blocks_reused_fraction": None, "blocks": {"accesses": 0, "distinct": 0}}
    taken = take.take_sharing({"single_turn": single, "multi_turn": none})
    assert taken["never_reused"] is taken["accesses_if_reused"] is taken["gap_median_s"] is None


def test_facts_are_plain_numbers_of_the_sections_that_stand(tmp_path, capsys):
    frame = pd.DataFrame({"n": [1, 2]})
    for name in ("10-a", "20-b"):
        section = Section(name, "T", tmp_path)
        section.hand_over({"n": frame["n"].sum(), "rate": float("nan")}, Parameters())
        section.hand_over({"by": {"x": [frame["n"].mean()]}}, Parameters())
    assert read_facts(tmp_path, Parameters())["10-a"] == {"n": 3, "rate": None, "by": {"x": [1.5]}}
    path = tmp_path / "facts/10-a.json"
    record = json.loads(path.read_text())
    assert record == {"parameters": Parameters().as_dict(), "facts": read_facts(tmp_path, Parameters())["10-a"]}
    path.write_text(json.dumps(record | {"facts": {"n": 4}}))
    assert read_facts(tmp_path, Parameters())["10-a"] == {"n": 4}
    assert read_facts(tmp_path, Parameters(block_size=8)) == {}
    assert "10-a.json: is of other parameters and left out" in capsys.readouterr().out
    with pytest.raises(TypeError, match="expected a number"):
        section.hand_over({"name": "text"}, Parameters())
    mark_failed(tmp_path, "20-b", "T", "cell 3: no")
    assert list(read_facts(tmp_path, Parameters())) == ["10-a"]
    Section("10-a", "T", tmp_path)  # begins anew
    assert read_facts(tmp_path, Parameters()) == {}
    path.write_text("{")
    with pytest.raises(InputError, match=r"10-a\.json: is no valid JSON; remove it"):
        read_facts(tmp_path, Parameters())
