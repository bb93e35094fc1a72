"""What reaches a terminal is plain text, whatever a file, a record, a template or a folder is called or holds."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import LIB
from samples import record, save_small_tokenizer, write_records

import kvprefix
from kvprefix.files.paths import InputError, plain_text, tell
from kvprefix.files.progress import show_progress

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\u2028\x9b31m\x7f\b"
SEEN = r"\x1b[2J\x1b]0;owned\x07\u202e\u2028\x9b31m\x7f\x08"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SOURCES = sorted(Path(kvprefix.__file__).parent.rglob("*.py"))


def run(folder, *words, environment=None):
    """Run the real command; return (exit code, stdout, stderr), each of which holds nothing that a terminal obeys."""
    done = subprocess.run(
        [sys.executable, "-m", "kvprefix", *map(os.fsencode, words)], capture_output=True, timeout=120, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(LIB), **(environment or {})},
    )  # fmt: skip
    out, error = (text.decode() for text in (done.stdout, done.stderr))
    assert not OBEYED.search(out + error), repr(out + error)
    assert "Traceback" not in error
    return done.returncode, out, error


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x00\x1f\x7f\x80\x9f", r"\x00\x1f\x7f\x80\x9f"),
        ("\u202eabc\u2066\u200f\u061c", r"\u202eabc\u2066\u200f\u061c"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("\udcff\ufeff\u200b", r"\udcff\ufeff\u200b"),
        ("naïve Ünïcödé 日本 עברית \U0001f468\u200d\U0001f469 C:\\x1b |*<&", None),
        (Path("a\x07"), r"a\x07"),
    ],
)
def test_control_characters_are_seen_and_other_text_stays(text, shown):
    assert plain_text(text) == (text if shown is None else shown)
    assert plain_text(plain_text(text)) == plain_text(text)


def test_a_message_is_one_line(capsys):
    tell(f"a\n{EVIL}")
    tell("b\nc", sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == rf"a\n{SEEN}" + "\n" and captured.err == "b\\nc\n"


def test_a_progress_bar_is_plain(monkeypatch):
    class Terminal:
        encoding, text = "utf-8", ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("time.time", itertools.count().__next__)  # a bar shows after a second
    with show_progress(10, f"checking {EVIL}", "B") as bar:
        bar.update(5)
        bar.refresh()
    assert "checking" in terminal.text and SEEN in terminal.text
    assert not OBEYED.search(terminal.text.replace("\r", ""))


def test_no_message_leaves_another_way():
    others = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if call == "print" or re.search(r"(tqdm|bar|stdout|stderr)\.write$", call):
                others.append(f"{source.name}: {call}({ast.unparse(node.args[0]).partition('(')[0]})")
    assert others == [
        "interrupts.py: print(LINE)", "locks.py: print(plain_text)", "paths.py: tqdm.write(plain_text)",
        "words.py: sys.stdout.write(guess)", "table.py: sys.stdout.write(format_help)",
    ]  # fmt: skip


def test_hostile_file_names_records_and_reasons_are_shown_plainly(tmp_path, small_folder):
    records = [record("Hello there", "Hi"), {"id": EVIL, "conversations": [{"from": EVIL, "value": "x"}]}]
    write_records(tmp_path / f"data{EVIL}.json", records)
    words = ["--data-path", f"data{EVIL}.json", "--tokenizer", str(small_folder), "--skip-visualization"]
    code, out, error = run(tmp_path, "run", *words, "--output-dir", f"out{EVIL}")
    assert (code, error) == (0, "") and SEEN in out and f"results are in out{SEEN}" in out
    assert "Skipped, " in out and "1 (first: record 1" in out


@pytest.mark.parametrize("words", [
    ["run", "--data-path", f"no{EVIL}.json", "--output-dir", "out"],
    ["run", "--arrivals", EVIL, "--output-dir", "out"],
    ["run", "--seed", EVIL, "--output-dir", "out"],
    ["run", "--kv-model", f"no{EVIL}.json", "--output-dir", "out"],
    ["run", f"--no-option{EVIL}", "--output-dir", "out"],
    ["prepare", "--tokenizer", f"./no{EVIL}"],
    ["prepare", "--parameters-file", f"no{EVIL}"],
    ["curve", f"no{EVIL}.jsonl"],
    ["memory", f"no{EVIL}.json"],
    ["curve", "trace.jsonl", "--policy", EVIL],
    ["replay", f"no{EVIL}.jsonl", "--out", "out"],
    ["convert", f"no{EVIL}.jsonl", "out", "--to", EVIL],
    ["notebooks", f"no{EVIL}.ipynb", "--output-dir", "out"],
    ["check", "--url", f"http://{EVIL}", "--output-dir", "out"],
    ["--unknown", EVIL],
])  # fmt: skip
def test_hostile_words_are_refused_in_one_plain_line(tmp_path, words):
    code, out, error = run(tmp_path, *words)
    assert (code, out) == (2, "") and error.startswith("error: ") and error.count("\n") == 1
    assert r"\x1b[2J" in error


def test_bytes_that_are_no_text_and_a_terminal_without_unicode(tmp_path):
    trace = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]}
    for name in ("é日.jsonl", "é\udcff.jsonl"):
        (tmp_path / name).write_text(json.dumps(trace) + "\n")
    for encoding, shown in (("ascii", r"\xe9\u65e5.jsonl"), ("utf-8", "é日.jsonl")):
        environment = {"PYTHONIOENCODING": encoding}
        code, out, _ = run(tmp_path, "curve", "é日.jsonl", "--policy", "lru", environment=environment)
        assert code == 0 and out.startswith(shown)
    code, _, error = run(tmp_path, "curve", "é\udcff.jsonl", "--policy", "lru")
    assert code == 2 and error.startswith(r"error: é\udcff.jsonl: this name is not UTF-8")


def test_the_tables_of_curve_are_plain_in_both_forms(tmp_path):
    trace = {"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]}
    (tmp_path / f"t{EVIL}.jsonl").write_text(json.dumps(trace) + "\n")
    code, out, _ = run(tmp_path, "curve", f"t{EVIL}.jsonl", "--policy", "lru")
    assert code == 0 and out.startswith(f"t{SEEN}.jsonl: 1 requests") and "\n| LRU" in out
    code, out, _ = run(tmp_path, "curve", f"t{EVIL}.jsonl", "--policy", "lru", "--format", "json")
    assert code == 0 and json.loads(out)["trace"]["path"] == f"t{EVIL}.jsonl"


def test_what_a_template_says_is_plain(tmp_path):
    template = "{{ raise_exception('no" + EVIL.replace("\u2028", "") + "') }}"
    save_small_tokenizer(tmp_path / f"tok{EVIL}", template)
    write_records(tmp_path / "data.json", [record("Hello there", "Hi")])
    code, out, error = run(tmp_path, "prepare", "--data-path", "data.json", "--tokenizer", f"tok{EVIL}")
    assert code == 2 and r"no\x1b[2J" in out + error
    (tmp_path / f"tok{EVIL}" / "chat_template.jinja").write_text("{% " + EVIL)
    code, out, error = run(tmp_path, "prepare", "--data-path", "data.json", "--tokenizer", f"tok{EVIL}")
    assert code == 2 and error.count("\n") == 1


def test_what_a_notebook_says_is_plain(tmp_path):
    import nbformat

    cell = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    fails = nbformat.v4.new_code_cell(f"raise ValueError({EVIL!r} + chr(10))")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[cell, fails], metadata=metadata)
    nbformat.write(notebook, tmp_path / f"n{EVIL}.ipynb")
    write_records(tmp_path / "data.json", [record("Hello there", "Hi")])
    code, out, error = run(tmp_path, "notebooks", f"n{EVIL}.ipynb", "--data-path", "data.json", "--output-dir", "out")
    assert code in (1, 2) and f"n{SEEN}.ipynb" in out and f"ValueError: {SEEN}\\n" in error


def test_a_traceback_of_ours_is_plain_too(capsys):
    from kvprefix.__main__ import _show_traceback

    try:
        raise RuntimeError(f"a\n{EVIL}") from InputError(EVIL)
    except RuntimeError:
        _show_traceback(*sys.exc_info())
    error = capsys.readouterr().err
    assert not OBEYED.search(error) and f"\n{SEEN}\n" in error and error.startswith("kvprefix.files.paths.InputError: ")
