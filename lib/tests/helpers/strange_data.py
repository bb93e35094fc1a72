"""Strange little data sets, and the whole report of one of them, made in one process, with what is wrong in it."""

import contextlib
import csv
import io
import json
import math
import os
import random
import re
import warnings
from pathlib import Path

import nbformat
import numpy as np
from places import PROJECT, SHARED
from samples import record, write_records

A12 = SHARED / "cases/small/a12.jsonl"
WORDS = ["sea", "is", "calm", "and", "cold", "today", "so", "we", "walk", "along", "it", "until", "rain"]


def say(seed, words=12):
    """Return a sentence of so many words, the same for a seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def talk(seed, turns=3, words=12):
    """Return a record of a conversation of its own."""
    return record(*(say(f"{seed}-{k}", words) for k in range(2 * turns)))


def talks(n=12, turns=3, **options):
    """Return records of so many conversations, none like another."""
    return [talk(seed, turns, **options) for seed in range(n)]


def with_system(text, *texts):
    """Return a record that begins with a system message."""
    one = record(*texts)
    return {"conversations": [{"from": "system", "value": text}, *one["conversations"]]}


def stamps(text):
    """Return parameters under which conversations start at the times of a file with this text."""
    return {"arrivals": "stamps:{folder}/stamps.txt", "stamps": text}


def read_calls(n=None, without=()):
    """Return the records of the sample of calls, or the first n, without some of their fields."""
    lines = CALLS.read_text(encoding="utf-8").splitlines()[:n]
    return [{name: value for name, value in json.loads(line).items() if name not in without} for line in lines]


CALLS = PROJECT / "data/sample/calls.jsonl"
NAMES = ["95 % 中文数据的字段名称 😀", "\u202eשלום مرحبا\u202c\x07_&#{}", "\\input{x} $a$ ≥ −1", "x" * 90]
DPI = int(os.environ.get("STRANGE_DPI", 40))
SAME = record("Hello there, how are you?", "Fine.", "And now?", "Still fine.")
EMOJI = record("\U0001f600\u200d\ufe0f \u0301" * 9, "\u2028\U0001f44d", "\U0001f468\u200d\U0001f469")
FILE, NO_THINK = f"{NAMES[0]}.json", {"think": "constant", "think_median_s": 0.0}
SHORT = {"block_size": 16, "tokenizer": "fallback"}  # no system prompt of the template's
CASES = {  # name: (records, parameters); those that take long first
    "calls of agents": (CALLS, {}),
    "1,500 turns": ([record(*("ab"[k % 2] for k in range(3000)))], {"budget": 1_250_000, "block_size": 64}),
    "one conversation, its duplicates dropped": ([talk(1, 4)] * 6, {"drop_duplicates": True}),
    "one turn": ([talk(1, 1)], {}),
    "one turn, shorter than a block": ([record("a", "b")], SHORT),
    "shorter than a block": ([record(f"{k}", f"{k}") for k in range(8)], SHORT | {"block_size": 512}),
    "all equal, in one second": ([SAME] * 8, {"arrival_rate": 1e4}),
    "single turns": (talks(10, 1), {}),
    "no reuse at all": ([record(f"{k} {say(k, 30)}", "ok") for k in range(9)], SHORT),
    "a request larger than every pool": ([*talks(5, 2), record(say(0, 4000), "no", "why", "so")], {}),
    "one token a message": ([record("a", "b", "c", "d")] * 3 + [record("e", "f")], SHORT | {"block_size": 1}),
    "12 conversations of 3 turns": (talks(12, 3), {}),
    "blocks of 1, far apart": (talks(5, 2), {"block_size": 1, "arrival_rate": 1e-5}),
    "blocks of 512, in bursts": (talks(8, 2), {"block_size": 512, "arrivals": "gamma:20"}),
    "blocks larger than everything": (talks(3, 2), {"block_size": 100_000}),
    "empty replies, fallback template": ([record(say(k), "", say(-k), "") for k in range(6)], SHORT),
    "only system and user": ([with_system("You are terse.", say(k)) for k in range(6)], {}),
    "one huge message": ([record(say(3, 30_000), "short")], {}),
    "alike but for the last token": ([record(say(1, 50) + end, "ok") for end in (" a", " b")], {}),
    "all turns at once": (talks(8, 3), {"clock": "at_once"}),
    "one turn, at once": ([talk(1, 1)], {"clock": "at_once"} | stamps("5\n")),
    "back to back": (talks(8, 3), {"clock": "back_to_back"}),
    "no time at all": (talks(4, 3), {"clock": "back_to_back", "ttft_s": 0.0, "time_per_output_token_s": 0.0}),
    "clients, constant think time": (talks(8, 3), {"arrivals": "clients:3", "think": "constant"}),
    "equal stamps": (talks(5, 2), stamps("7\n" * 5)),
    "stamps, no think time": (talks(5, 3), stamps("0\n10\n20\n30\n40\n") | NO_THINK),
    "names in all scripts": ([one | dict.fromkeys(NAMES, 1) for one in [*talks(3, 2), EMOJI]], {"file": FILE}),
    "one call": (read_calls(1), {}),
    "calls without times and sessions": (read_calls(12, ["start_time", "end_time", "session_id"]), {}),
    "skipped records": ([{"conversations": []}, record("a", "b", first="gpt"), talk(2, 2), {"x": 1}], {}),
}  # fmt: skip
LAID_OUT = ("12 conversations of 3 turns", "1,500 turns", "names in all scripts", "calls of agents", "one turn")
assert set(LAID_OUT) <= set(CASES)
if A12.exists():
    CASES["the file of 12 that failed"] = (A12, {})


def make_report(name, folder, tokenizers):
    """Run all notebooks on one of CASES in this process; return the folder of the report and what figures lack."""
    from kvprefix.report import sections as report
    from kvprefix.report.facts import cache as facts_cache
    from kvprefix.report.notebooks import find_misfit
    from kvprefix.studies import cache as study
    from kvprefix.traces.parameters import Parameters

    records, parameters = CASES[name]
    folder.mkdir()
    os.environ |= {"KVPREFIX_DERIVED": str(folder / "derived"), "KVPREFIX_SCHEDULER": "here"}
    chosen = {"tokenizer": "small", **parameters}
    file = chosen.pop("file", "data.json")
    data = records if isinstance(records, Path) else write_records(folder / file, records)
    (folder / "stamps.txt").write_text(chosen.pop("stamps", ""))
    if "arrivals" in chosen:
        chosen["arrivals"] = chosen["arrivals"].format(folder=folder)
    chosen["tokenizer"] = str(tokenizers[chosen["tokenizer"]])
    chosen |= {"data": str(data), "output_dir": str(folder / "report")}
    study.ACCESS_BUDGET = facts_cache.ACCESS_BUDGET = chosen.pop("budget", 200_000_000)
    lacking, save, save_drawing = [], report.save_figure, report.save_drawing

    def look_and_save(figure, data, caption, path):
        if name not in LAID_OUT:  # which takes a quarter of a report's time
            figure.set_layout_engine("none")
        save_quickly(figure, data, caption, Path(path))
        lacking.extend(f"figure {Path(path).name}: {fault}" for fault in look_at(figure, caption))

    report.save_figure, report.save_drawing = look_and_save, lambda *_: None
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the clock .* lets turns arrive sooner")  # which is said on purpose
        try:
            given = Parameters(**{name: value for name, value in chosen.items() if name != "output_dir"})
            for path in sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb")):
                if not find_misfit(path, given):
                    run_notebook(path, chosen)
        finally:
            report.save_figure, report.save_drawing = save, save_drawing
    return folder / "report", lacking


def save_quickly(figure, data, caption, path):
    """Save a figure as `plot.save_figure` does, but small and without a PDF, which takes three quarters of the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{path}.png", dpi=DPI)
    path.with_suffix(".pdf").touch()
    data.to_csv(f"{path}.csv", index=False)
    path.with_suffix(".txt").write_text(caption)


def run_notebook(path, parameters):
    """Run a notebook's code cells here, with parameters in place of its own."""
    names = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            try:
                exec(compile(cell.source, f"{path.stem}[{cell.id}]", "exec"), names)
            except Exception as error:
                error.add_note(f"in {path.name}, cell {cell.id}")
                raise
            if "parameters" in cell.metadata.get("tags", []):
                names |= parameters


def look_at(figure, caption):
    """Yield what is wrong with a figure: a legend without entries, axes that show nothing and do not say so."""
    for note in (text.get_text().replace("\n", " ") for axes in figure.axes for text in axes.texts if text.get_gid()):
        if note[1:] not in caption:
            yield f"the caption does not say {note!r}"
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    for legend in legends:
        texts = [text.get_text() for text in legend.get_texts()]
        if not texts or not all(texts):
            yield f"a legend with the entries {texts}"
    for k, axes in enumerate(figure.axes):
        if not np.isfinite([axes.get_xlim(), axes.get_ylim()]).all():
            yield f"axes {k} end nowhere"
        areas = [path.get_extents() for one in axes.collections for path in one.get_paths()]
        has_area = any(one.width > 0 and one.height > 0 for one in areas)
        if not axes.texts and not axes.patches and not has_area and not any(map(_is_seen, axes.lines)):
            yield f"axes {k} ({axes.get_ylabel()!r} over {axes.get_xlabel()!r}) show nothing and do not say so"


def _is_seen(line):
    """Say whether a point of a line lies in its axes, or a pixel beside them."""
    points, box = line.get_transform().transform(line.get_xydata()), line.axes.get_window_extent()
    with np.errstate(invalid="ignore"):
        return ((points >= box.min - 1) & (points <= box.max + 1)).all(axis=1).any()


WRONG = {
    "no number": re.compile(r"(?<![\w.])[-+]?(?:(?i:nan|inf|infinity|nat)|None(?! of))(?![\w.-])"),
    "a zero with a sign": re.compile(r"(?<![\w.])[-−]0(\.0+)?(?![\d.]*[1-9])(?![\d\w–-])(?!\.\d)"),
    "nothing of nothing": re.compile(r"\b0 of (the )?0\b"),
    "one of many": re.compile(
        r"(?<![\d.,])1 (\w+-turn )?"
        r"(requests|blocks|conversations|turns|records|seeds|tokens|draws|capacities|cases)\b(?!/s)"
    ),
    "a caption against itself": re.compile(r"\(first seed\).*seeds|varied: arrival rate.*conversations/s, c"),
    "an empty place": re.compile(r"\(\)|:\s*\.|  \.|, \.|; \.|\[\]|\{\}"),
}


def find_faults(folder):
    """Yield what is wrong in a report's texts and tables."""
    for path in (folder / "report.md", *folder.glob("tables/*.tex"), *folder.glob("figures/*.txt")):
        text = path.read_text()
        if path.suffix == ".tex":
            text = text.replace("--", "–").replace("{}", "")
        for number, line in enumerate(text.splitlines(), start=1):
            for what, pattern in WRONG.items():
                for match in pattern.finditer(line):
                    around = line[max(match.start() - 60, 0) : match.end() + 40]
                    yield f"{path.name}:{number}: {what}: ...{around}..."
    for path in (*folder.glob("tables/*.csv"), *folder.glob("figures/*.csv"), *folder.glob("*_metrics.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                bad = [cell for cell in row if re.fullmatch(r"[-+]?(nan|inf|infinity)|-0(\.0*)?", cell, re.I)]
                if bad:
                    yield f"{path.name}:{number}: {bad}"
    for path in folder.glob("*_stats.json"):
        yield from _find_odd_numbers(json.loads(path.read_text()), path.name)


def _find_odd_numbers(value, where):
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _find_odd_numbers(one, f"{where}.{key}")
    elif isinstance(value, list):
        for one in value:
            yield from _find_odd_numbers(one, where)
    elif isinstance(value, float) and (not math.isfinite(value) or value == 0 and math.copysign(1, value) < 0):
        yield f"{where}: {value}"
