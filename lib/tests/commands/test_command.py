"""The command as a user meets it: equal files, clear messages, nothing half-written, no traceback."""

import json
import os
import resource
import subprocess
import sys

import pytest
from places import SAMPLE

from kvprefix.__main__ import main
from kvprefix.commands import NAMES

DATA_FILES = [
    f"{mode}_{name}" for mode in ("single_turn", "multi_turn")
    for name in ("stats.json", "request_metrics.csv", "block_metrics.csv", "trace.jsonl")
]  # fmt: skip


def run(folder, *extra, data=SAMPLE):
    return main(["run", "--data-path", str(data), "--output-dir", str(folder), "--skip-visualization", *extra])


def test_equal_seeds_give_byte_equal_files_and_another_seed_does_not(tmp_path):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(tmp_path / folder, "--seed", seed) == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(DATA_FILES)
    for name in DATA_FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


def test_the_trace_can_drive_a_server(tmp_path):
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "multi_turn_trace.jsonl").read_text().split("\n") if line]
    assert [list(line) for line in lines[:1]] == [
        ["request_id", "conversation_id", "turn", "timestamp", "messages", "prompt_tokens", "output_tokens"]
    ]
    assert all(line["messages"][-1]["role"] == "user" for line in lines)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    stats = json.loads((tmp_path / "multi_turn_stats.json").read_text())
    assert (
        len(lines) == stats["requests"]
        and sum(line["prompt_tokens"] for line in lines) == stats["prompt_tokens"]["total"]
    )


def test_figures_are_drawn_unless_skipped(tmp_path):
    assert main(["run", "--data-path", str(SAMPLE), "--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "comparison.png").exists() and (tmp_path / "comparison.pdf").exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--block-size", "0"], "block_size is 0; expected a whole number of tokens"),
        (["--block-size", "-4"], "block_size is -4"),
        (["--block-size", "abc"], "block_size is 'abc'"),
        (["--block-size", "1.5"], "block_size is '1.5'"),
        (["--arrival-rate", "0"], "arrival_rate is 0.0; expected"),
        (["--arrival-rate", "-1"], "arrival_rate is -1.0"),
        (["--arrival-rate", "nan"], "arrival_rate is nan"),
        (["--arrival-rate", "fast"], "arrival_rate is 'fast'"),
        (["--max-conversations", "0"], "max_conversations is 0; expected a whole number of conversations, from 1 to"),
        (["--seed", "-1"], "seed is -1"),
        (["--clock", "sundial"], "clock 'sundial' is not known; known: causal"),
        (["--drop-duplicates", "maybe"], "drop_duplicates is 'maybe'; expected true or false"),
        (["--tokenizer", "./nowhere"], "tokenizer ./nowhere: is no folder"),
        (["--tokenizer", "no-such/tokenizer-anywhere"], "could not be fetched from the hub"),
        (["--tokenizer", "not a name"], "no hub id"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_would_be_right(tmp_path, capsys, extra, said):
    assert run(tmp_path / "out", *extra) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("error:") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.json", None, "no such file"),
        ("empty.json", b"", "is empty"),
        ("binary.json", b"\x89PNG\r\n\x1a\n\0\0", "neither a JSON array nor JSON Lines"),
        ("object.json", b'{\n "data": []\n}', "expected an object with a list `conversations` or `messages`"),
        ("numbers.json", b"[1, 2, 3]", "no usable conversation among 3 whole records: 3 not_a_conversation"),
        ("unusable.json", b'[{"conversations": []}]', "1 no_messages"),
        ("middle.json", b'[{"id": "a"}, {"id" "b"}, {"id": "c"}' + b" " * 70000 + b"]", "record 1 is not valid JSON"),
    ],
)
def test_wrong_data_is_refused_naming_the_file(tmp_path, capsys, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run(tmp_path / "out", data=path) == 2
    error = capsys.readouterr().err
    assert name in error and said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_cut_file_works_and_says_where_it_ended(tmp_path, capsys):
    path = tmp_path / "cut.json"
    path.write_bytes(SAMPLE.read_bytes()[:1500])
    assert run(tmp_path / "out", data=path) == 0
    assert "The file is cut: it ends at byte 1,500" in capsys.readouterr().out


def test_a_misspelt_flag_or_parameter_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", "--blocksize", "16")
    assert stop.value.code == 2 and "--blocksize" in capsys.readouterr().err
    (tmp_path / "p.txt").write_text("blocksize=16\n")
    assert run(tmp_path / "out", "--parameters-file", str(tmp_path / "p.txt")) == 2
    assert "unknown parameter blocksize; known: data, tokenizer" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "out") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_file(tmp_path):
    def limit():  # the trace of the sample is larger than this
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    assert run(tmp_path / "warm") == 0  # tokenised and cached before the disk is full
    command = [sys.executable, "-m", "kvprefix", "run", "--data-path", str(SAMPLE), "--skip-visualization"]
    command += ["--output-dir", str(tmp_path / "out")]
    ended = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, env={**os.environ})
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and "error:" in ended.stderr
    for path in (tmp_path / "out").glob("*"):  # the folder itself goes where nothing was written
        assert path.read_bytes() == (tmp_path / "warm" / path.name).read_bytes()


def test_help_and_import_stay_light():
    heavy = "{'numba', 'pandas', 'transformers', 'matplotlib'}"
    code = f"import sys, kvprefix.__main__; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fetch_without_a_network_says_so(capsys):
    assert main(["fetch"]) == 2
    error = capsys.readouterr().err
    assert "needs a network" in error and "Traceback" not in error


def test_the_traces_are_written_as_parquet_where_asked(tmp_path):
    from kvprefix.blocks.sharing import share
    from kvprefix.traces.parquet import read_trace

    run(tmp_path, "--parquet")
    trace = read_trace(tmp_path / "multi_turn_trace.parquet")
    stats = json.loads((tmp_path / "multi_turn_stats.json").read_text())
    assert share(trace, 16).token_hit_rate == stats["token_hit_rate"] and trace.info["mode"] == "multi_turn"


@pytest.mark.parametrize("option", ["--arrivals=stamps:{}", "--arrivals=day:{}", "--think=data:{}"])
@pytest.mark.parametrize("command", ["run", "prepare", "notebooks"])
def test_a_timing_file_that_is_not_there_is_said_before_any_work(tmp_path, capsys, derived, command, option):
    words = {"run": ["--output-dir", str(tmp_path / "out")], "prepare": []}
    words["notebooks"] = ["x.ipynb", "--output-dir", str(tmp_path / "out")]
    assert main([command, *words[command], option.format(tmp_path / "none.txt")]) == 2
    assert f"error: {tmp_path / 'none.txt'}: No such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not derived.exists()


def test_an_output_folder_that_cannot_be_is_refused_before_tokenising(tmp_path, capsys, derived):
    (tmp_path / "file").touch()
    assert main(["run", "--data-path", str(SAMPLE), "--output-dir", str(tmp_path / "file")]) == 2
    assert f"error: {tmp_path / 'file'}: Not a directory" in capsys.readouterr().err and not derived.exists()


def test_a_file_that_is_no_notebook_is_refused(tmp_path, capsys):
    (tmp_path / "bad.ipynb").write_text("{half")
    assert main(["notebooks", str(tmp_path / "bad.ipynb"), "--output-dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("bad.ipynb: is no notebook that can be read (NotJSONError)\n")


def test_answers_do_not_overwrite_requests_and_are_compressed_by_name(tmp_path, capsys):
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"request_id": "a", "prompt_token_ids": [1, 2, 3]}\n')
    before = requests.read_bytes()
    assert main(["replay", str(requests), "--out", str(requests)]) == 2
    assert "is both what is read and what would be written" in capsys.readouterr().err
    assert requests.read_bytes() == before
    for suffix, magic in ((".gz", b"\x1f\x8b"), (".zst", b"\x28\xb5\x2f\xfd")):
        assert main(["replay", str(requests), "--out", str(tmp_path / f"out.jsonl{suffix}")]) == 0
        assert (tmp_path / f"out.jsonl{suffix}").read_bytes().startswith(magic)


def test_a_block_size_that_the_trace_contradicts_is_refused(tmp_path, capsys):
    trace = tmp_path / "trace.jsonl"
    line = {"timestamp": 0, "input_length": 20, "output_length": 1, "hash_ids": [1], "block_size": 512}
    trace.write_text(json.dumps(line) + "\n")
    assert main(["curve", str(trace), "--block-size", "512"]) == 0
    assert main(["curve", str(trace), "--block-size", "1024"]) == 2
    assert "says that its blocks hold 512 tokens, and 1024 were given" in capsys.readouterr().err


@pytest.mark.parametrize("words, said", [
    (["check", "--ur", "http://x", "--output-dir", "o"], "unrecognized arguments: --ur; did you mean --url? ("),
    (["run", "--output-dir", "o", "--drop-duplicates"], "argument --drop-duplicates: expected one argument ("),
    (["replay", "x", "--out", "y", "--engine", "foo"], "argument --engine: invalid choice: 'foo'"),
    (["curve", "x", "--polcy", "lru"], "unrecognized arguments: --polcy"),
])  # fmt: skip
def test_a_wrong_option_is_said_in_one_line(capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"error: {said}") and error.count("\n") == 1


def test_a_folder_without_a_tokenizer_is_said_whole(tmp_path, capsys):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert main(["prepare", "--data-path", str(SAMPLE), "--tokenizer", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is no folder with a tokenizer that can be loaded: Couldn't instantiate" in error
    assert "one of: (1)" in error  # not only the first line of what transformers says


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["curve", "x", "--policy", "lur"], "lru"),
        (["crve", "x"], "curve"), (["curve", "x", "--polcy=lru"], "--policy"),
        (["run", "--output-dir", "o", "--kv-model", "llama-3.1-8"], "Llama-3.1-8B"),
        (["run", "--output-dir", "o", "--arrivals", "poison"], "poisson"),
        (["convert", "x", "y", "--to", "mooncak"], "mooncake"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_guessed(words, meant, capsys):
    try:
        assert main(words) == 2
    except SystemExit as end:
        assert end.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_without_a_command_all_are_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in NAMES)
