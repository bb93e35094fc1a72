"""Which rules an engine's version follows: the table, the replay and the command."""

import json

import pytest

from kvprefix.__main__ import main
from kvprefix.engines import vllm
from kvprefix.engines.sglang import SGLang
from kvprefix.engines.versions import SGLANG_VERSIONS, VLLM_VERSIONS, Row, Table, VLLMRules, find_rules
from kvprefix.engines.vllm import VLLM
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import make_trace_of

TABLE = Table("X", (Row("1.2", "1.3.1", "a"), Row("1.5", "1.6", "b"), Row("2.0.1", "2.1", "c")))
# 4 usable blocks of 2, see test_request_files: freed as in older versions the last prompt hits nothing
PROMPTS = [[1, 2, 3], [4, 5, 6], [7], [8], [1, 2, 3]]


@pytest.mark.parametrize(
    ("version", "rules"),
    [
        ("1.2", "a"), ("1.2.0", "a"), ("1.2.9", "a"), ("1.3.1", "a"), ("1.4", "a"), ("1.4.99.1", "a"), ("1.10", "b"),
        ("1.5", "b"), ("1.5.0rc1", "b"), ("v1.6", "b"), ("2.0", "b"), ("2.0.0", "b"), ("2.0.1", "c"),
        ("2.1.7.dev3+g12ab", "c"), ("2.1+cu118", "c"), ("2.1.0.post1", "c"),
    ],
)  # fmt: skip
def test_a_version_follows_the_row_in_force(version, rules):
    assert find_rules(TABLE, version) == (rules, "")


@pytest.mark.parametrize("version", ["2.2", "2.10", "3.0", "10.0.1"])
def test_a_newer_version_follows_the_newest_row_and_that_is_said(version):
    rules, note = find_rules(TABLE, version)
    assert rules == "c"
    assert note == f"X {version} is newer than 2.1, the last version checked; the rules are those of 2.1"


@pytest.mark.parametrize(
    "version", ["", "2", "0", "new", "2.x", "2..1", "2.1 ", "2.1\n", "1.2.3.4.5", "٢.١", 2.1, None, True, (2, 1)]
)
def test_no_version_is_refused_with_those_that_are_known(version):
    with pytest.raises(InputError) as caught:
        find_rules(TABLE, version)
    expected = "expected one like '2.1' (known: 1.2 to 1.3.1; 1.5 to 1.6; 2.0.1 to 2.1)"
    assert str(caught.value) == f"X {version!r} is no version; {expected}"


@pytest.mark.parametrize("version", ["1.1.9", "0.99", "1.0"])
def test_an_older_version_is_refused(version):
    with pytest.raises(InputError, match="is older than those whose rules are known; expected one like '2.1'"):
        find_rules(TABLE, version)


def test_the_engines_versions():
    legacy = {version: find_rules(VLLM_VERSIONS, version).rules.legacy_free for version in ("0.8", "0.22.1", "0.23.0")}
    assert legacy == {"0.8": True, "0.22.1": True, "0.23.0": False}
    assert (VLLM().version, SGLang().version) == (VLLM_VERSIONS.newest, SGLANG_VERSIONS.newest) == ("0.32", "0.5.23")
    for make, said in ((VLLM, "vLLM '0.7.3' is older"), (SGLang, "SGLang '0.5.22' is older")):
        with pytest.raises(InputError, match=said):
            make(said.split("'")[1])


def test_a_replay_follows_its_version_and_says_what_is_not_checked():
    trace = make_trace_of(PROMPTS)
    replayed = {version: VLLM(version, block_size=2, blocks=5).replay(trace) for version in ("0.22", "0.23", "0.99")}
    assert [one.hit_tokens[-1] for one in replayed.values()] == [0, 2, 2]
    assert [one.rules.legacy_free for one in replayed.values()] == [True, False, False]
    assert [list(one.details) for one in replayed.values()] == [[], [], ["note"]]
    assert "0.99 is newer than 0.32" in replayed["0.99"].details["note"]
    assert [one.label for one in replayed.values()] == ["vLLM 0.22", "vLLM 0.23", "vLLM 0.99"]
    note = SGLang("0.6.0").replay(trace).details["note"]
    assert note == "SGLang 0.6.0 is newer than 0.5.23, the last version checked; the rules are those of 0.5.23"


def test_a_new_version_is_one_row(monkeypatch):
    row = Row("0.40", "0.41", VLLMRules(legacy_free=True))
    monkeypatch.setattr(vllm, "VLLM_VERSIONS", VLLM_VERSIONS._replace(rows=(*VLLM_VERSIONS.rows, row)))
    trace = make_trace_of(PROMPTS)
    engines = [VLLM(version, block_size=2, blocks=5) for version in ("0.39", "0.40", "0.41.2")]
    hits = [engine.replay(trace).hit_tokens[-1] for engine in engines]
    assert hits == [2, 0, 0]
    assert "newer than 0.41" in VLLM("0.42").replay(trace).details["note"]


# ---- The command


def run(folder, *options):
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    lines = [{"request_id": f"{i}", "prompt_token_ids": prompt} for i, prompt in enumerate(PROMPTS)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out.unlink(missing_ok=True)
    code = main(["replay", str(source), "--out", str(out), "--block-size", "2", "--num-gpu-blocks", "5", *options])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else None


def test_the_command_takes_a_version(tmp_path, capsys):
    (*plain, totals), (*legacy, of_legacy), (*old, of_old) = (
        run(tmp_path, *options)[1] for options in ([], ["--legacy-free"], ["--engine-version", "0.22.1"])
    )
    assert plain[-1]["num_cached_tokens"] == 2 and legacy[-1]["num_cached_tokens"] == 0 and old == legacy
    assert not {"engine_version", "note"} & totals["totals"].keys() and not totals["totals"]["legacy_free"]
    assert of_legacy["totals"]["legacy_free"]
    assert of_old["totals"] == of_legacy["totals"] | {"engine_version": "0.22.1"}
    capsys.readouterr()
    *new, of_new = run(tmp_path, "--engine-version", "0.99")[1]
    assert new == plain and of_new["totals"]["engine_version"] == "0.99"
    assert f"note: {of_new['totals']['note']}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine-version", "newest"], "vLLM 'newest' is no version; expected one like '0.32' (known: 0.8 to 0.22;"),
        (["--engine-version", "0.7"], "vLLM '0.7' is older than those"),
        (["--engine-version", "0.5.22", "--engine", "sglang"], "SGLang '0.5.22' is older than those"),
        (["--engine-version", "0.22", "--legacy-free"], "expected it or --engine-version, not both"),
    ],
)
def test_wrong_versions_are_refused(tmp_path, capsys, options, said):
    assert run(tmp_path, *options) == (2, None)
    assert said in capsys.readouterr().err
