"""Cards, their prices, and what a GiB of cache is worth."""

import json

import numpy as np
import pytest
from places import CARRIED, SHARED

from kvprefix.cache.replay import PrefixCache
from kvprefix.files.paths import InputError
from kvprefix.formats.read import read_trace
from kvprefix.models.cards import list_cards, load_card
from kvprefix.models.memory import load_model
from kvprefix.models.money import (
    count_paying,
    marginal_seconds,
    price_of,
    price_of_seconds,
    value_of_gib,
)
from kvprefix.models.prefill import prefill_seconds

COST = json.loads((CARRIED / "cost.json").read_text())
MOONCAKE = SHARED / "data" / "mooncake_conversation_trace.jsonl.gz"
OWN = {"memory_mib": 1024, "flops": {"bf16": 1e12}, "bytes_per_s": 1e11}


def column(name):
    return [row[name] for row in COST["rows"].values()]


def test_marginal_seconds_of_known_savings():
    found = marginal_seconds(column("GiB"), column("gpu_s_saved"), COST["hours"])
    assert np.allclose(found, column("marginal_gpu_s_saved_per_GiB_hour"), atol=2e-3)


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not beside the project")
def test_savings_of_a_real_trace():
    trace, model, card = read_trace(MOONCAKE), load_model("Llama-3.1-8B"), load_card("H100-80G")
    prompt = trace.prompt_tokens
    whole_s = prefill_seconds(np.zeros_like(prompt), prompt, model, card)
    assert round(whole_s.sum(), 1) == COST["gpu_s_without_cache"]
    for capacity in ("5859", "200000"):
        row, hit = COST["rows"][capacity], PrefixCache("lru", int(capacity)).replay(trace).hit_tokens
        saved_s = (whole_s - prefill_seconds(hit, prompt, model, card)).sum()
        assert round(saved_s, 1) == row["gpu_s_saved"]
        assert round(saved_s / whole_s.sum(), 5) == row["flop_hit"]


def test_a_gib_pays_as_long_as_it_saves_more_than_it_costs():
    card = load_card("H100-80G", usd_per_hour=2.5)
    assert value_of_gib(1.0, card) == pytest.approx(0.000694, abs=5e-7)  # as the note on the numbers has it
    sizes, saved = column("GiB"), column("gpu_s_saved")
    # The last GiB of 1,875 is worth 0.453 * 0.000694 = 0.000315 dollars per hour, that of 3,125 0.000133.
    assert count_paying(sizes, saved, COST["hours"], card, 0.0003) == 1875
    assert count_paying(sizes, saved, COST["hours"], card, 0.003) == 0.0
    assert count_paying(sizes, saved, COST["hours"], card, 0.0) == 12_500


def test_prices_by_hand():
    card = load_card("H100-80G", usd_per_hour=2.5)
    assert price_of(card, 24, gpus=8) == 480
    assert price_of_seconds(7200, card) == 5
    assert price_of(load_card("L4-24G", usd_per_hour=0), 24) == 0


def test_every_card_of_the_table_loads():
    table = list_cards()
    assert len(table) >= 10 and table["card"].str.lower().is_unique
    for row in table.itertuples(index=False):
        card = load_card(row.card.lower())
        assert card.name == row.card and card.label and card.source
        assert 10 < card.memory_mib / 1024 < 300 and 5e13 < card.rate() < 1e16
        assert card.rate("fp8") in (card.rate(), pytest.approx(2 * card.rate(), rel=0.02))
        assert card.usd_per_hour is None or 0 < card.usd_per_hour < 20
    h100 = load_card("H100-80G")
    assert (h100.rate("bfloat16"), h100.rate("torch.float8_e4m3fn")) == (989e12, 1979e12)


def test_a_card_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(OWN | {"usd_per_hour": 1}))
    card = load_card(path)
    assert (card.name, card.memory_bytes, card.usd_per_hour, card.rate("fp8")) == ("mine", 2**30, 1, 1e12)
    assert load_card(path, usd_per_hour=3.0).usd_per_hour == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_mib": 0}, "mine.json: memory_mib is 0; expected a number above 0"),
        ({"memory_mib": None}, "memory_mib is None"),
        ({"flops": {"fp8": 1e12}}, "a card's field flops.bf16 is missing; expected memory_mib"),
        ({"flops": {"bf16": "fast"}}, "flops.bf16 is 'fast'"),
        ({"flops": {"bf16": 1e12, "fp4": 1e12}}, "a card's field flops.fp4 is not known; expected memory_mib"),
        ({"name": 7}, "name is 7; expected a text"),
        ({"flops": 1e12}, "flops is 1000000000000.0; expected an object such as"),
        ({"usd_per_hour": -1}, "mine.json: usd_per_hour is -1; expected a price in dollars, 0 or more"),
        ({"speed": 1}, "a card's field speed is not known"),
    ],
)
def test_a_wrong_card_is_named(tmp_path, fields, message):
    (tmp_path / "mine.json").write_text(json.dumps(OWN | fields))
    with pytest.raises(InputError, match=message):
        load_card(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_card("H100-80GB"), "card 'H100-80GB' is not known; .* did you mean H100-80G?"),
        (lambda: load_card("H100-80G", usd_per_hour=-2.5), "price is -2.5; expected a price in dollars, 0 or more"),
        (lambda: load_card("H100-80G", usd_per_hour=float("nan")), "price is nan"),
        (lambda: price_of(load_card("L4-24G"), 1), "no price of L4-24G is known; expected its dollars per hour"),
        (lambda: price_of(load_card("H100-80G"), -1), "hours is -1"),
        (lambda: price_of(load_card("H100-80G"), 1, gpus=0), "gpus is 0"),
        (lambda: marginal_seconds([10, 5], [1, 2], 1), "sizes of a cache must rise"),
        (lambda: marginal_seconds([10], [1], 0), "hours is 0"),
        (lambda: count_paying([1], [1], 1, load_card("H100-80G"), -1), "price of a GiB-hour is -1"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
