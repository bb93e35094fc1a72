"""Numbers from text: ASCII digits only, and no value of a parameter that runs for ever, overflows or gives NaN."""

import csv
import json
import math
import os
import subprocess
import time

import numpy as np
import pytest
from places import PROJECT
from samples import record, write_records

from kvprefix.__main__ import main
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, resolve_output
from kvprefix.models.memory import kv_bytes_per_token
from kvprefix.traces.arrivals import ARRIVALS
from kvprefix.traces.parameters import parse_parameters
from kvprefix.traces.table import TABLE
from kvprefix.traces.timing_files import read_profile, read_stamps, read_think_times

QUICK_S = 20  # on a busy machine
ODD_WHOLE = ["１６", "٣", "1_000", " 16 ", "+5", "16.0", "1e3", "0x10", "³", "", "-", "9" * 31, "1\n", "Ⅷ", "1\x00"]
ODD_FLOAT = ["１.５", "٣", "1_0.0", " 2 ", "+5", "1e", "e5", ".", "", "1,5", "0x1p3", "2.0\n", "infinity", "ınf"]


@pytest.mark.parametrize("text", ODD_WHOLE)
def test_a_whole_number_is_ascii_digits(text):
    assert read_number(text, int) == text
    for name in (name for name, one in TABLE.items() if one.kind == "whole"):
        with pytest.raises(InputError, match=name.replace("_", "[_ ]")):
            parse_parameters({name: text})


@pytest.mark.parametrize("text", ODD_FLOAT)
def test_a_number_is_ascii_digits(text):
    assert read_number(text, float) == text
    for name in (name for name, one in TABLE.items() if one.kind == "number"):
        with pytest.raises(InputError, match=name):
            parse_parameters({name: text})
    for spec in (f"gamma:{text}", f"weibull:{text}", f"clients:3:{text}", f"clients:3:2:{text}"):
        with pytest.raises(InputError, match="arrivals"):
            ARRIVALS.parse(spec, {"arrival_rate": 2.0})


@pytest.mark.parametrize(
    "text, kind, value",
    [("16", int, 16), ("-3", int, -3), ("007", int, 7), ("9" * 30, int, 10**30 - 1), ("2", float, 2.0),
     ("-.5", float, -0.5), ("1.", float, 1.0), ("1e-3", float, 0.001), ("2.5E+3", float, 2500.0),
     ("1e999", float, math.inf)],
)  # fmt: skip
def test_numbers_are_read(text, kind, value):
    assert read_number(text, kind) == value and type(read_number(text, kind)) is kind


# What each parameter is given. Whatever is accepted must give a run without NaN or infinity, quickly.
OWN = {
    "block_size": ["10**12", "1000000000000", "2147483648", "2147483647", "1", "0", "-1", "nan"],
    "max_conversations": ["9" * 30, "9223372036854775808", "9223372036854775807", "4611686018427387903", "0", "1"],
    "seed": ["18446744073709551616", "9223372036854775808", "4611686018427387904", "4611686018427387903", "-1"],
    "arrival_rate": ["1e-320", "1e308", "1e400", "1e-7", "1e7", "1e-6", "1e6", "inf", "nan", "-1", "0"],
    "think_median_s": ["1e308", "1e400", "86401", "86400", "1e-320", "0", "-1e-320", "nan"],
    "think_sigma": ["1e308", "1e400", "10.1", "10", "1e-320", "0", "nan"],
    "ttft_s": ["1e308", "1e400", "86401", "86400", "1e-320", "0", "nan"],
    "time_per_output_token_s": ["1e308", "1e400", "3601", "3600", "1e-320", "0", "nan"],
    "arrivals": [
        "gamma:1e308", "gamma:1e-300", "gamma:1001", "gamma:1000", "gamma:0.001", "gamma:1e400", "gamma:nan",
        "weibull:1e308", "weibull:1e-300", "weibull:1001", "weibull:1000", "weibull:0.001",
        "clients:999999999999", "clients:100001", "clients:20000", "clients:1:1000", "clients:10:1000",
        "clients:100000:11", "clients:1000:100", "clients:3:1e308", "clients:3:1e-300", "clients:3:1:1e308",
        "clients:3:1:1e-300", "clients:1000:1:10", "clients:１", "clients:-1", "clients:1.5", "clients:", "gamma:",
        "stamps:", "day:", "stamps: ", "day: ", "stamps:\x00", "day:\x00", "stamps", "poisson:",
    ],
    "think": ["data:", "data: ", "data:\x00", "data", "lognormal:", ""],
    "kv_model": ["", " ", "\x00", "9" * 5000],
}  # fmt: skip
BY_KIND = {
    "whole": ["9" * 30, "-1", "nan", "1_0", "1.5"], "number": ["1e400", "nan", "-1", "1_0", ""],
    "flag": ["", "１", "1_", "2", "yes"], "path": ["", " ", "\x00"], "entry": ["", "\x00", ":"],
}  # fmt: skip
HOSTILE = {name: OWN.get(name, BY_KIND[one.kind]) for name, one in TABLE.items()}
REFUSED = {  # at least these; all of BY_KIND
    "block_size": 5, "max_conversations": 4, "seed": 4, "arrival_rate": 9, "think_median_s": 5, "think_sigma": 4,
    "ttft_s": 4, "time_per_output_token_s": 4, "arrivals": 26, "think": 6, "kv_model": 4,
}  # fmt: skip


def test_hostile_values_are_of_parameters():
    assert set(OWN) == set(REFUSED) <= set(TABLE) and set(BY_KIND) == {one.kind for one in TABLE.values()}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_are_refused_in_a_line_or_give_finite_numbers_quickly(name, tmp_path, capsys, small_folder):
    texts = [["Hello there", "Fine", "How?", "So", "Why?"], ["Blocks of tokens", "Yes"], ["The sea", "It is", "Oh"]]
    data = write_records(tmp_path / "d.json", [record(*text, id=f"r{k}") for k, text in enumerate(texts)])
    refused = 0
    for k, value in enumerate(HOSTILE[name]):
        given = {"data": data, "tokenizer": small_folder, name: value}
        (tmp_path / "p.txt").write_text("".join(f"{key}={text}\n" for key, text in given.items()))
        out, start = tmp_path / f"out{k}", time.monotonic()
        words = ["--parameters-file", str(tmp_path / "p.txt"), "--output-dir", str(out), "--skip-visualization"]
        code = main(["run", *words])
        error = capsys.readouterr().err
        assert time.monotonic() - start < QUICK_S, value
        refused += code == 2
        if code == 2:
            assert error.startswith("error: ") and error.count("\n") == 1, value
            assert not out.exists()
        else:
            assert (code, error) == (0, ""), value
            _check_finite(out)
    assert refused >= REFUSED.get(name, len(HOSTILE[name])), f"{refused} of {HOSTILE[name]}"


def _check_finite(folder):
    def refuse(constant):
        raise AssertionError(constant)

    for path in folder.glob("*_stats.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    for path in folder.glob("*_request_metrics.csv"):
        times = [float(row["arrival_s"]) for row in csv.DictReader(path.read_text().splitlines())]
        assert times == sorted(times) and all(0 <= one <= 1e12 for one in times)


@pytest.mark.parametrize("words", [["１６"], ["1_000"], ["+5"], ["1e3"], ["9" * 40], [""], ["-1"], ["0"], ["10", "x"]])
@pytest.mark.parametrize("option", ["--capacities", "--block-size"])
def test_curve_refuses_odd_numbers(tmp_path, capsys, option, words):
    trace = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]}
    (tmp_path / "t.jsonl").write_text(json.dumps(trace) + "\n")
    assert main(["curve", str(tmp_path / "t.jsonl"), f"{option}={','.join(words)}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and repr(words[-1]).strip("'") in error


def test_curve_takes_any_capacity_that_is_whole(tmp_path, capsys):
    line = {"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(line | {'timestamp': 9})}\n")
    from kvprefix.cache.policies import POLICIES

    start = time.monotonic()
    most = ["1", "1000000000000", str(2**62), "9" * 30]
    words = [str(tmp_path / "t.jsonl"), "--policy", ",".join(POLICIES), "--capacities", ",".join(most)]
    assert main(["curve", *words, "--format", "json"]) == 0
    assert time.monotonic() - start < 5 * QUICK_S  # the replays are compiled
    rows = json.loads(capsys.readouterr().out)["curves"]
    assert {row["block"] for row in rows if row["capacity_blocks"] > 1} == {0.5}


@pytest.mark.parametrize("value", ["nan", "inf", "1", "-0.1", "٠", "1e-400", "0_1", "+0"])
def test_curve_s_warm_up_is_a_share(tmp_path, capsys, value):
    trace = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]}
    (tmp_path / "t.jsonl").write_text(json.dumps(trace) + "\n")
    code = main(["curve", str(tmp_path / "t.jsonl"), f"--warmup={value}", "--policy", "lru"])
    out, error = capsys.readouterr()
    assert code == 0 if value == "1e-400" else code == 2 and error.startswith("error: warmup is")
    assert "nan" not in out


@pytest.mark.parametrize("option", ["--block-size", "--num-gpu-blocks"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("value", [
    "１６", "1_6", "+16", "9" * 30, "1000000000000", "2147483647", str(2**62), str(2**63), "-1", "0", "", "nan",
])  # fmt: skip
def test_replay_refuses_odd_numbers_or_answers_quickly(tmp_path, capsys, option, engine, value):
    (tmp_path / "r.jsonl").write_text('{"request_id": "a", "prompt_token_ids": [1, 2, 3]}\n' * 2)
    start, out = time.monotonic(), tmp_path / "out.jsonl"
    code = main(["replay", str(tmp_path / "r.jsonl"), "--out", str(out), "--engine", engine, f"{option}={value}"])
    error = capsys.readouterr().err
    assert time.monotonic() - start < QUICK_S * 2
    assert code == 0 and out.exists() or code == 2 and error.startswith("error: ") and error.count("\n") == 1
    if not value.isascii() or value in ("1_6", "+16", "-1", "0", "", "nan"):
        assert code == 2


@pytest.mark.parametrize("jobs", ["１", "+1", "0", "1_0", " 2", "-1", "x", "", "1001", "1e1"])
def test_jobs_are_a_whole_number(tmp_path, capsys, jobs):
    assert main(["notebooks", "x.ipynb", "--output-dir", str(tmp_path), f"--jobs={jobs}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --jobs is {jobs!r}; expected a whole number of notebooks")


@pytest.mark.parametrize("line", [
    "１", "1_0", "+1", "1e308", "1e13", "-1e13", "inf", "nan", "1e400", "true", '{"timestamp": true}',
    '{"timestamp": "１"}', '{"timestamp": 1e400}', '{"timestamp": NaN}', '{"timestamp": [1]}', '{"timestamp": null}',
    '{"timestamp": %s}' % ("9" * 400), '{"chat_id": 1, "timestamp": 1e308}', '{"a": ' + "[" * 100_000,
])  # fmt: skip
@pytest.mark.parametrize("read", [lambda path: read_stamps(path, 1), read_profile, read_think_times])
def test_a_line_of_a_timing_file_is_a_number_in_range(tmp_path, read, line):
    (tmp_path / "times").write_text(f"1\n{line}\n")
    with pytest.raises(InputError, match="times: line 2 is .*; expected ") as refused:
        read(tmp_path / "times")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rates", [
    [0] * 23 + [1], [1e-300] * 23 + [1e12], [1e12] * 24, [5e-324] + [0] * 23, [0] * 12 + [1e-320] + [0] * 11,
])  # fmt: skip
@pytest.mark.parametrize("rate_per_s", [1e-6, 2.0, 1e6])
def test_any_day_is_drawn_quickly_and_in_its_hours(tmp_path, rates, rate_per_s):
    (tmp_path / "day").write_text("\n".join(map(str, rates)))
    start = time.monotonic()
    day = ARRIVALS.parse(f"day:{tmp_path / 'day'}", {"arrival_rate": rate_per_s})
    starts = day.draw(2000, np.random.default_rng(1))
    assert time.monotonic() - start < QUICK_S
    assert np.isfinite(starts).all() and (np.diff(starts) >= 0).all() and starts[0] >= 0
    hours = set((starts % 86_400 // 3600).astype(int))
    assert hours <= {hour for hour, one in enumerate(rates) if one >= max(rates) * 1e-9}


@pytest.mark.parametrize(
    "spec", ["clients:10:1000", "clients:1000:100:10", "clients:3000:50", "clients:100000:10:0.001"]
)
@pytest.mark.parametrize("n", [1, 3000])
def test_any_clients_are_drawn_within_bounds(spec, n):
    start = time.monotonic()
    starts = ARRIVALS.parse(spec, {"arrival_rate": 2.0}).draw(n, np.random.default_rng(1))
    assert time.monotonic() - start < 3 * QUICK_S
    assert len(starts) == n and np.isfinite(starts).all() and (np.diff(starts) >= 0).all()


@pytest.mark.parametrize("field", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"])
@pytest.mark.parametrize("value", [2**31, 10**400, 0, -1, 1e308, True, "１", "8"])
def test_a_model_s_sizes_are_whole_numbers_in_range(field, value):
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    with pytest.raises(InputError, match=f"{field} is .*; expected a whole number"):
        kv_bytes_per_token({**config, field: value})


@pytest.mark.parametrize("words", [
    ["run", "--output-dir", ""], ["run", "--output-dir", " "], ["run", "--output-dir=out", "--data-path="],
    ["run", "--output-dir=out", "--tokenizer="], ["run", "--output-dir=out", "--kv-model="],
    ["run", "--output-dir=out", "--arrivals=stamps:"], ["run", "--output-dir=out", "--arrivals=day:"],
    ["run", "--output-dir=out", "--think=data:"], ["run", "--output-dir=out", "--parameters-file="],
    ["prepare", "--data="], ["prepare", "--scheduler="], ["curve", ""], ["replay", "", "--out", "x"],
    ["replay", "x", "--out", ""], ["convert", "", "x", "--to", "mooncake"], ["convert", "x", "", "--to", "mooncake"],
    ["notebooks", "", "--output-dir", "x"], ["notebooks", "x", "--output-dir", ""], 
    ["check", "--url=", "--output-dir=x"], ["notebooks", "x", "--output-dir", "x", "--jobs", ""],
    ["check", "--url=http://127.0.0.1:9", "--output-dir="],
    ["check", "--url=http://127.0.0.1:9", "--output-dir=x", "--requests="],
])  # fmt: skip
def test_an_empty_path_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert "expected" in error or "known" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["", " "])
def test_a_notebook_s_output_folder_is_a_path(folder):
    with pytest.raises(InputError, match="output folder is"):
        resolve_output(folder)


@pytest.mark.parametrize("given", ["DATA=", "TOKENIZER=", "SEED=１６", "SEED=+5", "ARRIVALS=day:", "KV_MODEL="])
def test_make_hands_values_on_as_they_are(tmp_path, given):
    top = PROJECT
    command = ["make", "--no-print-directory", "-n", "-C", str(top), "report", "NAME=no-such", given]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
    name, _, value = given.partition("=")
    assert f"'{name}='\\''{value}'\\'''" in shown or f"{name}='{value}'" in shown
    with pytest.raises(InputError):
        parse_parameters({name.lower(): value})
