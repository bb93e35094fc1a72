"""What cards leave for a model, number by number."""

import pandas as pd
import pytest
from said import missing, said_of

from kvprefix.models.memory import Model, load_model
from kvprefix.models.pool import Fit, Pool
from kvprefix.report.captions import state_cards
from kvprefix.report.facts import cards as facts_cards

MODEL = Model("Tiny", 2**20, "", load_model("Llama-3.1-8B").cache)  # a MiB per token: 1,024 tokens are a GiB
CURVES = [pd.DataFrame({"capacity_blocks": [50, 400]}), pd.DataFrame({"capacity_blocks": [64, 900]})]


def make_fit(card, gpus, blocks, block_size=16, groups=1, tokens=None):
    pool = Pool(blocks, block_size, 2**20, groups, blocks * 2**20, 3 * 2**30 // gpus, gpus)
    return Fit(card, pool, tokens or pool.tokens)


FITS = [make_fit("Small-1G", 1, 40), make_fit("H100-80G", 1, 128), make_fit("H100-80G", 2, 1000)]
RATES = pd.DataFrame([
    (seed, fit, rate + 0.01 * seed, never) for seed in (0, 1) for fit, rate, never in
    ((0, 0.10, 3), (1, 0.31, 1), (2, 0.77, 0))
], columns=["seed", "fit", "token", "never_fit"])  # fmt: skip


def given(fits=FITS, reason="", model=MODEL, frame=RATES, engine="An engine"):
    return fits, reason, model, 32, CURVES, frame, engine


def test_each_card_with_its_blocks_and_what_is_hit_there():
    # The report's blocks hold 32 tokens, those of the pools 16: 128 of these are 64 of the report, 2,048 MiB.
    facts = facts_cards.facts_cards(*given())
    assert [one["capacity"] for one in facts["cards"]] == [20, 64, 500]
    assert [one["outside"] for one in facts["cards"]] == [True, False, False]
    assert facts_cards.mark_cards(facts) == [("H100-80G", 64), ("2 H100-80G", 500)]
    assert facts_cards.list_points(facts) == []  # they are on the curve
    assert facts["at"]["label"] == "H100-80G" and facts["at"]["token_hit_rate"]["mean"] == pytest.approx(0.315)
    text = said_of(facts_cards.facts_cards, *given())
    assert not missing(
        text, "One Small-1G leaves ~ 40 ~ blocks ( ~ 640 ~ tokens; ~ 0.6 ~ GiB", "the weights of Tiny ( ~ 3.0 ~ GiB",
        "An engine hits ~ 10.5 % ~ 10.0 % ~ 11.0 % ~ there ( ~ 3 ~ prompts do not fit",
    )  # fmt: skip
    assert "One H100-80G leaves 128 blocks (2,048 tokens; 2.0 GiB of KV cache): An engine hits **31.5 %" in text
    assert "(1 prompt does not fit). 2 H100-80G leave 1,000 blocks (16,000 tokens; 15.6 GiB of KV cache)" in text
    assert not missing(text, "Assumed: an engine may take ~ 92 ~ % of a card's memory, and needs ~ 3.5 ~ GiB")
    caption = state_cards(facts)
    assert "Off the axis: Small-1G (0.6 GiB)." in caption and "blocks that they leave for Tiny" in caption


def test_without_replies_there_is_no_rate():
    facts = facts_cards.facts_cards(*given(frame=None, engine=None))
    text = said_of(facts_cards.facts_cards, *given(frame=None, engine=None))
    assert all(one["token_hit_rate"] is None for one in facts["cards"]) and "hits" not in text.split("What an")[0]
    assert not missing(text, "One H100-80G leaves ~ 128 ~ blocks", "the trace has no replies")


def test_a_hybrid_says_its_groups():
    model, fits = load_model("gpt-oss-20b"), [make_fit("H100-80G", 1, 300, groups=2, tokens=3200)]
    facts = facts_cards.facts_cards(*given(fits, model=model))
    assert facts_cards.list_points(facts) == [(100, pytest.approx(0.105))]
    assert facts["cards"][0]["capacity"] == 100 and facts["at"]["tokens"] == 2400
    text = said_of(facts_cards.facts_cards, *given(fits, model=model))
    assert not missing(text, "300 ~ blocks of ~ 16 ~ tokens", "in ~ 2 ~ groups of layers", "a retention of 0")
    assert "tokens; " not in text and "the curve is of full attention" in state_cards(facts)
    empty = pd.DataFrame(columns=RATES.columns)
    text = said_of(facts_cards.facts_cards, *given(fits, model=model, frame=empty))
    assert "What An engine hits there is not modelled: its groups of layers do not align." in text


def test_no_card_and_why():
    facts = facts_cards.facts_cards(*given([], "its weights_ are not known", frame=None))
    assert facts["at"] is None and facts_cards.mark_cards(facts) == [] and state_cards(facts) == ""
    text = said_of(facts_cards.facts_cards, *given([], "its weights_ are not known", frame=None))
    assert text == r"No card is marked on the curve: its weights\_ are not known."
