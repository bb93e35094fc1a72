"""What a report adds up to: every number is one of the facts, every sentence one of a notebook that ran."""

import json

import numpy as np
import pandas as pd
import pytest
from found import FACTS, change
from said import said_of

from kvprefix.files.paths import InputError
from kvprefix.report.facts.conclusion import facts_conclusion, facts_limits
from kvprefix.report.section_files import mark_failed, read_facts
from kvprefix.report.sections import Section
from kvprefix.traces.parameters import Parameters

SHARING = (
    "62.1 % of the multi-turn prompt tokens are cached (by token, cold start, prompts only). Of the first messages' tokens "
    "alone, without the template, 8.6 % are. So prefix sharing in this traffic comes from conversations that continue, "
    "not from common prompts. Keeping generated tokens as well makes it 86.4 % (+24.3 points). A block that is reused at "
    "all is accessed 3.8 times on average; 39.4 % of the distinct blocks are never accessed again. Half of the block "
    "reuses come within 113 s."
)
SAID = {
    "20-prefix-sharing": SHARING,
    "25-provenance": "Of the 62.1 % **54.1 points** come from own earlier turns, 5.4 from the chat template, 2.1 from equal "
    "conversations and 0.7 from other conversations.",
    "30-block-size": "Without a bound, blocks of 1 token find 63.3 % of the prompt tokens, blocks of 512 40.8 %.",
    "65-advice": "2 changes of the prompts' texts would win **0.6 points** without a bound (95 %: 0.5 to 0.7), as a replay "
    "confirms: Move the time stamp: 62.7 % instead of 62.1 %.",
    "40-cache-size": "With a bound, LRU reaches half of the unbounded 62.2 % with 22,690 blocks (44.3 GiB of "
    "Llama-3.1-8B's KV cache) and 90 % of it with 127,033 (248.1 GiB).",
    "55-misses": "With 22,512 blocks under LRU 69.1 % of the prompt tokens are missed: **24.2 %** were generated before, "
    "but only prompts are cached, 23.2 % would be hit by the optimum, which knows the future, 12.4 % are new, 8.1 % "
    "were evicted, and the optimum could not keep them either, and 1.2 % share only part of a block with an earlier prompt.",
    "50-eviction": "At the capacities tried, better eviction wins at most 25.8 points: with 14,393 blocks the optimum, which knows the "
    "future, hits 48.8 % and LRU 23.0 %. None of the 7 other policies tried is better than LRU at any capacity.",
    "60-timing": "With 2,468 blocks LRU hits 59.6 % on the clock \"all turns at once\" and 5.4 % on the clock \"causal\". With "
    "12,264 blocks LRU hits 57.5 % if conversations start at 0.1 /s and 11.1 % if conversations start at 20 /s, a "
    "difference that is not separated from zero.",
    "70-engine-check": "vLLM 0.32's rules, with generated tokens cached and requests running at once, hit 7.5 % with "
    "5,000 blocks and 84.0 % with 340,000 blocks.",
    "80-capacity-plan": "The cheapest plan that keeps 99 % of the first tokens within 1.5 s is 3 replicas of 2 H100-80G "
    "with 256 GiB of DRAM each, at \\$25.94 per hour: 66.4 % of the prompt tokens are cached there.",
}


def better(policy, points):
    return {"policy": policy, "blocks": 5, "points": points}


def test_what_is_equal_is_said_to_be():
    one = change("60-timing", "clocks", "naive_token_hit_rate", to=0.0544)
    assert 'LRU hits 5.4 % on the clock "all turns at once" and on the clock "causal" alike.' in said_of(facts_conclusion, one)


def test_the_conclusion_is_made_of_every_fact():
    sentences = list(SAID.values())
    assert said_of(facts_conclusion, FACTS) == f"{' '.join(sentences[:4])}\n\n{' '.join(sentences[4:])}"


@pytest.mark.parametrize("name", SAID)
def test_a_section_that_failed_adds_nothing(name):
    whole = said_of(facts_conclusion, FACTS)
    without = said_of(facts_conclusion, {other: one for other, one in FACTS.items() if other != name})
    assert without.split() == whole.replace(SAID[name], "").split()


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("20-prefix-sharing", "sharing", "token_hit_rate"), 0.16, "16.0 % of the multi-turn prompt tokens are cached (by"),
        (("20-prefix-sharing", "sharing", "token_hit_rate"), 0.16, "8.6 % are. Keeping generated"),  # no less than half of it
        (("20-prefix-sharing", "sharing", "token_hit_rate"), 0.18, "18.0 % of the multi-turn prompt tokens are cached (by token, "
            "cold start, prompts only). Of the first messages' tokens alone, without the template, 8.6 % are. So prefix"),
        (("20-prefix-sharing", "sharing", "with_generated"), 0.6213, "Keeping generated tokens as well changes nothing."),
        (("20-prefix-sharing", "sharing", "with_generated"), 0.5, "makes it 50.0 % (−12.1 points)"),
        (("20-prefix-sharing", "sharing", "bare_token_hit_rate"), None, "prompts only). Keeping"),
        (("20-prefix-sharing", "sharing", "never_reused"), None, "points). Of the 62.1 %"),
        (("20-prefix-sharing", "sharing", "gap_median_s"), 5400, "come within 90 min."),
        (("30-block-size", "block_sizes", "sizes", 1, "token_hit_rate"), 0.6, "blocks of 1 token find 60.0 % of the prompt tokens, blocks of 512 40.8 %"),
        (("30-block-size", "block_sizes", "sizes", 1, "size"), 2, "blocks of 2 tokens find"),
        (("30-block-size", "block_sizes", "sizes", 2, "token_hit_rate"), 0.4, "blocks of 512 40.0 %"),
        (("40-cache-size", "lru", "unbounded"), 0, "\n\nNothing is ever hit, whatever the capacity. With 22,512"),
        (("40-cache-size", "lru", "needs", 1, "blocks"), 512, "90 % of it with 512 (248.1 GiB)."),
        (("40-cache-size", "lru", "needs", 1, "gib"), 1.04, "90 % of it with 127,033 (1.0 GiB)."),
        (("40-cache-size", "lru", "model"), "a_b_", r"GiB of a_b\_'s KV cache"),
        (("50-eviction", "policies", "capacities", 0, "opt"), 0.4, "wins at most 30.6 points: with 5,037 blocks"),
        (("50-eviction", "policies", "capacities"), [{"blocks": 5, "lru": 0.094, "opt": 0.0944}], "Eviction decides nothing here: LRU hits as much as the optimum at"),
        (("50-eviction", "policies", "better"), [better("LFU", 0.5), better("GDSF", 1.25), better("LFU", 0.75)], "7 other policies tried, 2 are better than LRU at some capacity; the largest gain is +1.25 points (GDSF)."),
        (("50-eviction", "policies", "better"), [better("a|*b*", 0.5)], r"1 is better than LRU at some capacity; the largest gain is +0.50 points (a\|\*b\*)."),
        (("60-timing", "rates", "capacities", 1, "verdict"), "higher", "11.1 % if conversations start at 20 /s. vLLM"),
        (("60-timing", "clocks", "others"), [], "at any capacity. With 12,264 blocks"),
        (("70-engine-check", "chain", "overlap", 0, "token_hit_rate"), 0.1, "hit 10.0 % with 5,000 blocks and 84.0 % with 340,000 blocks."),
        (("70-engine-check", "chain", "engine"), "SGLang", "not separated from zero. SGLang's rules, with"),
        (("70-engine-check", "chain", "overlap"), [], "not separated from zero. The cheapest plan"),
        (("80-capacity-plan", "plan_choice", "decoding_replicas"), 7, "its cards are overloaded: about 7 replicas are needed."),
        (("80-capacity-plan", "plan_choice", "is_met"), False, "None of 72 plans keeps 99 % of the first tokens within 1.5 s."),
    ],
)  # fmt: skip
def test_a_changed_fact_changes_its_sentence(path, to, said):
    before, after = said_of(facts_conclusion, FACTS), said_of(facts_conclusion, change(*path, to=to))
    assert said in after and (said not in before or after.endswith(said))


def test_one_pool_and_no_bounded_cache_are_said():
    one = change("70-engine-check", "chain", "overlap", to=FACTS["70-engine-check"]["chain"]["overlap"][:1])
    assert "running at once, hit 7.5 % with 5,000 blocks. The cheapest" in said_of(facts_conclusion, one)
    only = {"20-prefix-sharing": FACTS["20-prefix-sharing"]}
    assert said_of(facts_conclusion, only).endswith("no bounded one was measured in this report.")
    assert said_of(facts_conclusion, {}) == "These rates are those of an unbounded cache: no bounded one was measured in this report."


def test_one_is_one():
    one = change("50-eviction", "policies", "tried", to=1)
    one["40-cache-size"]["lru"]["needs"][0]["blocks"] = one["50-eviction"]["policies"]["capacities"][1]["blocks"] = 1
    one["60-timing"]["rates"]["capacities"][1]["blocks"] = one["70-engine-check"]["chain"]["overlap"][0]["blocks"] = 1
    assert said_of(facts_conclusion, one).count(" 1 block ") == 4 and "the 1 other policy tried" in said_of(facts_conclusion, one)


@pytest.fixture
def stamps(tmp_path):
    path = tmp_path / "sta`mps.txt"
    path.write_text("0\n1\n")
    return path


def test_limits_are_those_of_this_run(stamps):
    limits = said_of(facts_limits, FACTS, Parameters())
    assert "The starts of conversations are modelled (`poisson`), not observed. Think times (`lognormal`) and" in limits
    assert "100 of 1,300 records skipped" in limits and "ShareGPT's conversations" in limits
    assert "caches of 25-provenance, 30-block-size, 40-cache-size, 50-eviction, 55-misses, 60-timing evict" in limits
    assert "The section on engines applies" in limits and "usable conversation" not in limits

    given = Parameters(data="x.jsonl", arrivals=f"stamps:{stamps}", think=f"data:{stamps}", max_conversations=1000)
    limits = said_of(facts_limits, change("20-prefix-sharing", "sharing", "records_skipped", to=0), given)
    assert f"Conversations start at the times that `` {stamps} `` holds. The rates and bursts of 60-timing are" in limits
    assert f"Think times are drawn from `` {stamps} ``, whichever" in limits and "starts of conversations" not in limits
    assert "At most 1,000 usable conversations of the log were read, the first ones." in limits
    assert "skipped" not in limits and "ShareGPT" not in limits

    limits = said_of(facts_limits, {}, Parameters(clock="at_once"))
    assert "The cache is unbounded in the whole report" in limits and "naive clock `at_once`" in limits
    assert "Think times" not in limits and "engines applies" not in limits
    assert "No section applies an engine's rules." in said_of(facts_limits, {"40-cache-size": {}}, Parameters())
    assert all(line.startswith("- ") for line in limits.split("\n"))


# ---- How facts are kept


def test_facts_are_plain_values_of_the_sections_that_stand(tmp_path, capsys):
    frame = pd.DataFrame({"n": [1, 2]})
    for name in ("10-a", "20-b"):
        section = Section(name, "T", tmp_path, Parameters())
        section.keep("sum", {"n": frame["n"].sum(), "rate": float("nan"), "name": "\ud800", "all": frame["n"].all()})
        section.keep("mean", {"x": (frame["n"].mean(),)})
    kept = {"sum": {"n": 3, "rate": None, "name": "\ud800", "all": True}, "mean": {"x": [1.5]}}
    assert read_facts(tmp_path, Parameters())["10-a"] == kept
    assert list(read_facts(tmp_path, Parameters())["10-a"]) == ["sum", "mean"]  # in the order in which they are kept
    one, other = (tmp_path / f"facts/{name}.json" for name in ("10-a", "20-b"))
    assert one.read_bytes() == other.read_bytes()
    path = tmp_path / "facts/10-a.json"
    record = json.loads(path.read_text())
    assert record == {"parameters": Parameters().as_dict(), "facts": read_facts(tmp_path, Parameters())["10-a"]}
    path.write_text(json.dumps(record | {"facts": {"n": 4}}))
    assert read_facts(tmp_path, Parameters())["10-a"] == {"n": 4}
    assert read_facts(tmp_path, Parameters(block_size=8)) == {}
    assert "10-a.json: is of other parameters and left out" in capsys.readouterr().out
    with pytest.raises(TypeError, match=r"a fact is \{1\}; expected a number, a name"):
        section.keep("set", {"of": {1}})
    with pytest.raises(InputError, match=r"section 30-c keeps facts of no parameters; expected Section"):
        Section("30-c", "T", tmp_path).keep("sum", {})
    again = path.read_bytes()
    section = Section("10-a", "T", tmp_path, Parameters())
    section.keep("n", {"n": 4})
    section.keep("n", {"n": 5})  # the cell is run again
    assert read_facts(tmp_path, Parameters())["10-a"] == {"n": {"n": 5}} and path.read_bytes() != again
    mark_failed(tmp_path, "20-b", "T", "cell 3: no")
    assert list(read_facts(tmp_path, Parameters())) == ["10-a"]
    Section("10-a", "T", tmp_path)  # begins anew
    assert read_facts(tmp_path, Parameters()) == {}
    path.write_text("{")
    with pytest.raises(InputError, match=r"10-a\.json: is no valid JSON; remove it"):
        read_facts(tmp_path, Parameters())


def test_what_is_said_is_said_of_the_facts_that_are_kept(tmp_path):
    section = Section("10-workload", "T", tmp_path, Parameters())
    section.say_facts("Causality", "causality", {"later": np.int64(2000), "early": 0})
    assert section.items["text-Causality"]["text"] == (
        "None of the 2,000 later turns arrives before the reply that it answers is complete."
    )
    assert read_facts(tmp_path, Parameters()) == {"10-workload": {"causality": {"later": 2000, "early": 0}}}


def test_the_best_of_policies_and_the_ends_of_sizes_are_chosen():
    found = facts_conclusion(change("50-eviction", "policies", "better", to=[better("B", 0.5), better("A", 0.5)]))
    assert (found["policies"]["best"], found["policies"]["better"], found["policies"]["blocks"]) == ("A", 2, 14393)
    assert found["policies"]["gain"] == pytest.approx(25.8) and found["policies"]["decides"]
    assert [found["block_sizes"][name]["size"] for name in ("small", "large")] == [1, 512]
    assert [one["blocks"] for one in found["timing"]] == [2468, 12264]
    assert [one["separated"] for one in found["timing"]] == [True, False]
    assert [one["blocks"] for one in found["engines"]["pools"]] == [5000, 340000]
    assert facts_conclusion({}) == dict.fromkeys(
        ["agents", "sharing", "origin", "causes", "advice", "block_sizes", "capacities", "policies", "plan", "engines"]
    ) | {"timing": [], "bounded": False}
