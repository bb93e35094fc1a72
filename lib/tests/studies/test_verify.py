"""`kvprefix verify`: recorded answers of real engines hold, and what does not hold is named."""

import re
import shutil

import pytest
from places import CARRIED

import kvprefix as kp
from kvprefix.__main__ import main
from kvprefix.engines.vllm import VLLM
from kvprefix.files.paths import InputError
from kvprefix.studies import verify as verify_module


def test_every_anchor_holds_and_has_a_line(capsys):
    assert main(["verify"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok    ") for line in lines) and last == f"{len(lines)} of {len(lines)} anchors hold"
    said = "\n".join(lines)
    names = "cache salt", "893 requests with 500 blocks", "vLLM 0.22", "SGLang 0.5.23", "a live vLLM server", "OPT"
    names += "a sub-agent's times", "lines that list what is new", "2 public agentic sessions"
    names += "bytes of Gemma-3-27B at 9 lengths", "implied mfu 0.459", "loading pays, Llama-3.1-70B 8xH100", "llama4"
    assert all(name in said for name in names)
    assert len(lines) >= 59


def test_a_rule_that_is_wrong_is_named_and_the_exit_code_is_1(monkeypatch, capsys):
    class Legacy(VLLM):
        def __init__(self, version="0.22", **options):
            super().__init__("0.22", **options)

    monkeypatch.setattr(verify_module, "VLLM", Legacy)
    assert main(["verify"]) == 1
    said = capsys.readouterr().out
    assert "FAIL  vLLM 0.32, 893 requests with 500 blocks: 26 differ, first request 22: 800, not 880" in said
    assert "FAIL  a live vLLM server, 90 requests: 9 differ" in said
    held, anchors = map(int, re.search(r"(\d+) of (\d+) anchors hold", said).groups())
    assert anchors - held == 5
    assert "ok    vLLM 0.22, 893 requests with 500 blocks" in said


def test_recordings_that_are_not_there_or_cut_are_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="holds no recorded answers; expected to run in a clone"):
        list(kp.verify(tmp_path))
    folder = shutil.copytree(CARRIED, tmp_path / "fixtures")
    whole = (folder / "sharegpt200_close.outline.jsonl.gz").read_bytes()
    (folder / "sharegpt200_close.outline.jsonl.gz").write_bytes(whole[:5000])
    assert main(["verify", "--fixtures", str(folder)]) == 2
    assert "outline.jsonl.gz: is cut or damaged" in capsys.readouterr().err
