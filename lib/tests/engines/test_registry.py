"""The engines are one list with one protocol: what is entered there is found wherever engines are."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from said import said_of

from kvprefix.__main__ import main
from kvprefix.engines.registry import ENGINES, Engine, Variant
from kvprefix.engines.replayed import EngineReplayed
from kvprefix.engines.sglang import SGLang
from kvprefix.engines.vllm import VLLM
from kvprefix.report.facts.engines import facts_engines, tabulate_engines
from kvprefix.report.plots.engines import draw_engines
from kvprefix.stats.replayed import Replayed
from kvprefix.studies.engines import list_engines, measure_engines
from kvprefix.traces.trace import make_trace_of


class Half:
    """An engine that hits half of each prompt that its pool holds."""

    null_blocks = 3

    def __init__(self, version="1", *, block_size=1, blocks=None, outputs=True, overlap=None):
        self.block_size, self.blocks, self.outputs, self.overlap = block_size, blocks, outputs, overlap

    def replay(self, trace):
        prompts = trace.tokens.prompt_lengths()[trace.rows]
        room = np.inf if self.blocks is None else (self.blocks - self.null_blocks) * self.block_size
        return EngineReplayed(
            hit_tokens=np.where(prompts > room, -1, prompts // 2), prompt_tokens=prompts, block_size=self.block_size,
            blocks=self.blocks, cached_hashes=0, blocks_with_hash=0, outputs_cut=0,
        )  # fmt: skip

    def explain_refusal(self, prompt_tokens):
        return f"{prompt_tokens} are too many"


@pytest.fixture
def half(monkeypatch):
    fine = Variant(name="half_fine", label="Half, fine", options={"block_size": 4})
    variants = Variant(name="half", label="Half"), fine
    engine = Engine(name="half", label="Half", definition="half of it", load=lambda: Half, variants=variants)
    monkeypatch.setitem(ENGINES, "half", engine)


def test_one_more_engine_is_in_the_command(half, tmp_path, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{"request_id": "a", "prompt_token_ids": [1] * 5}, {"request_id": "b", "prompt_token_ids": [1] * 9}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--engine", "half", "--block-size", "2", "--num-gpu-blocks", "6"]
    assert main(["replay", str(source), "--out", str(out), *options]) == 0
    first, second, totals = (json.loads(line) for line in out.read_text().splitlines())
    assert first == {"request_id": "a", "num_prompt_tokens": 5, "num_cached_tokens": 2}
    assert (second["num_cached_tokens"], second["error"]) == (None, "9 are too many")
    assert (totals["totals"]["engine"], totals["totals"]["hit_rate"]) == ("half", 0.4)
    for option, said in (("--concurrent", "a rule of vLLM's"), ("--legacy-free", "a rule of vLLM's")):
        assert main(["replay", str(source), "--out", str(out), *options, option]) == 2
        assert f"{option} is {said}; it has no meaning with the engine half" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["replay", "--help"])
    assert "half: half of it" in " ".join(capsys.readouterr().out.split())


def test_one_more_engine_is_in_the_study_its_figure_and_its_tables(half, bundled_workload):
    frame = measure_engines(bundled_workload, bundled_workload.parameters.seed, [600])
    assert list(frame["case"][-4:]) == ["sglang_page", "sglang_token", "half", "half_fine"]
    token = frame.set_index("case")["token"]
    assert token["half"] == token["half_fine"] == pytest.approx(0.5, abs=0.01)
    assert list_engines()["half"].base == "vllm" and frame.set_index("case")["step_low"].notna()["half"]
    frame = pd.concat([frame, frame.assign(seed=1, low=np.nan)], ignore_index=True)
    figure, data = draw_engines(frame)
    (legend,) = figure.legends
    assert {"Half", "Half, fine"} <= {text.get_text() for text in legend.get_texts()}
    assert "half" in set(data["case"])
    bars = [patch for patch in figure.axes[0].patches if patch.get_width()]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(list_engines()) == 7
    assert "Half, fine" in set(tabulate_engines(frame)["case"]) and "Half, fine 50" in said_of(facts_engines, frame)


def test_an_engine_that_names_no_variant_is_compared_itself():
    engine = Engine(name="mine", label="My engine", definition="one's own", load=lambda: Half)
    assert engine.list_variants() == (Variant(name="mine", label="My engine"),)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_replays_a_trace(name):
    engine = ENGINES[name]
    trace = make_trace_of([[1, 2, 3, 4, 5], [1, 2, 3, 4, 9], [8] * 40])
    blocks = 9 + engine.load().null_blocks
    result = engine.make(block_size=2, blocks=blocks, outputs=True, overlap=None).replay(trace)
    assert isinstance(result, Replayed) and len(result) == 3
    assert result.hit_tokens.tolist() == [0, 4, -1] and result.prompt_tokens.tolist() == [5, 5, 40]
    assert result.hit_rate == 0.4 and result.label.startswith(f"{engine.label} ")
    assert (result.evictions, result.blocks, result.waited_s) == (0, blocks, None)
    assert np.isnan(engine.make(block_size=2, blocks=blocks).replay(make_trace_of([[8] * 40])).hit_rate)


def test_evictions_are_counted():
    # vLLM, 4 usable blocks of 2: (1 2) (3 4) (5 6) (7 8), then one for (9 9). SGLang, 20 tokens: 8 and 6, then 7 need
    # the room of the 8.
    assert VLLM(block_size=2, blocks=5).replay(make_trace_of([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9]])).evictions == 1
    prompts = [list(range(8)), list(range(10, 16)), list(range(20, 27))]
    assert SGLang(blocks=20).replay(make_trace_of(prompts)).evictions == 8
    assert SGLang(block_size=2, blocks=10).replay(make_trace_of(prompts)).evictions == 4


def test_a_replay_needs_no_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None; import kvprefix.engines.answer_files, kvprefix.engines.sglang; "
        "from kvprefix.engines.vllm import VLLM; from kvprefix.traces.trace import make_trace_of; "
        "assert VLLM(block_size=2).replay(make_trace_of([[1, 2, 3]] * 2)).hit_tokens.tolist() == [0, 2]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
