import json

import numpy as np
import pytest

from kvprefix.files.paths import InputError
from kvprefix.traces.arrivals import Auto
from kvprefix.traces.clock import Causal
from kvprefix.traces.parameters import REGISTRIES, Parameters, parse_parameters
from kvprefix.traces.table import TABLE


def test_defaults():
    parameters = Parameters()
    assert list(parameters.as_dict()) == list(TABLE)
    assert (parameters.data, parameters.tokenizer, parameters.max_conversations) == ("bundled", "bundled", None)
    assert parameters.make("clock") == Causal() and parameters.make("arrivals") == Auto(parameters.arrival_rate)
    assert Causal().think_median_s == parameters.think_median_s == TABLE["think_median_s"].default
    assert json.loads(json.dumps(parameters.as_dict())) == parameters.as_dict()


def test_block_size_of_numpy_becomes_a_plain_one():
    assert json.dumps(Parameters(block_size=np.int64(32)).as_dict()["block_size"]) == "32"


@pytest.mark.parametrize("name", TABLE)
def test_each_row_of_the_table_is_whole(name):
    one = TABLE[name]
    assert one.help and one.parse(one.show(one.default)) in (one.default, one.word)
    assert one.check(one.default) == one.default and one.example != one.default
    assert getattr(parse_parameters({name: one.show(one.example)}), name) == one.example
    if one.kind in ("whole", "number"):
        assert one.check(one.least) == one.least and one.check(one.most) == one.most
        for beyond in (one.least - 1, one.most + 1):
            with pytest.raises(InputError, match=f"{name} is {beyond:g}".replace("+", ".") if beyond < 1e6 else name):
                Parameters(**{name: beyond})


def test_the_forms_in_the_table_are_those_that_are_registered():
    for name, registry in REGISTRIES.items():
        assert TABLE[name].entries == {cls.form: cls.definition for cls in registry.values()}


def test_text_is_parsed_as_a_command_line_gives_it():
    texts = {
        "data": "a.json", "max_conversations": "12", "block_size": "32", "arrival_rate": "1e-1", "seed": "7",
        "clock": "at_once", "think_median_s": "3", "drop_duplicates": "true", "rejoin_split": "False",
    }  # fmt: skip
    expected = Parameters(
        data="a.json", max_conversations=12, block_size=32, arrival_rate=0.1, seed=7, clock="at_once",
        think_median_s=3.0, drop_duplicates=True, rejoin_split=False,
    )  # fmt: skip
    assert parse_parameters(texts) == expected
    assert parse_parameters({name: str(value) for name, value in expected.as_dict().items()}) == expected


def test_all_conversations():
    assert parse_parameters({"max_conversations": "all"}).max_conversations is None
    assert Parameters(max_conversations="all") == Parameters(max_conversations=None)


@pytest.mark.parametrize(
    "name, values",
    [
        ("max_conversations", [0, -1, 1.5, "many", True]),
        ("block_size", [0, 16.0, "x", None, True]),
        ("arrival_rate", [0, -2, float("nan"), float("inf"), "fast", True, None]),
        ("seed", [-1, 0.5, "x", None, True]),
        ("clock", ["warp", None]),
        ("think_median_s", [-1, "x"]),
        ("think_sigma", [float("nan")]),
        ("ttft_s", [float("inf")]),
        ("time_per_output_token_s", [None]),
        ("drop_duplicates", ["yes", 1, None]),
        ("rejoin_split", ["no", 0]),
    ],
)
def test_value_without_sense_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(InputError, match=name.replace("_", "[_ ]")):
            Parameters(**{name: value})


def test_text_without_sense_is_refused_by_name():
    for name, text in {
        "seed": "1.5",
        "arrival_rate": "fast",
        "drop_duplicates": "yes",
        "block_size": "",
    }.items():
        with pytest.raises(InputError, match=name.replace("_", "[_ ]")):
            parse_parameters({name: text})


def test_unknown_parameter_is_refused():
    with pytest.raises(InputError, match="unknown parameter blocksize; known: data, tokenizer"):
        parse_parameters({"blocksize": "16"})
