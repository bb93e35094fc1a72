"""What a comparison refuses, with what would be right; names with odd characters; where it may be written."""

import json
import shutil
import subprocess
import sys

import pytest
from places import LIB
from small_reports import change_json, chats, make_report

from kvprefix.__main__ import main
from kvprefix.files.paths import InputError
from kvprefix.report.comparison.folders import check_output, find_report, replace_folder

ODD = "a&b_<i>$%#"


@pytest.fixture(scope="module")
def whole(shared_derived, small_folder, tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("whole") / "whole", small_folder, chats(8), studies=True)


@pytest.fixture
def report(whole, tmp_path):
    """Return a copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def refuse(capsys, *given, out):
    """Compare, which must end with 2 and write nothing; return what was said."""
    before = sorted(out.parent.iterdir())
    assert main(["compare", *map(str, given), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said
    assert sorted(out.parent.iterdir()) == before
    return said


DAMAGES = {
    "no file": (lambda r: (r / "multi_turn_stats.json").unlink(), "multi_turn_stats.json: is missing, so the"),
    "no table": (lambda r: (r / "single_turn_block_metrics.csv").unlink(), "single_turn_block_metrics.csv: is missing"),
    "no JSON": (lambda r: (r / "multi_turn_stats.json").write_text('{"mode": '), "is no valid JSON"),
    "a list": (lambda r: (r / "multi_turn_stats.json").write_text("[1]"), "has no mode, requests, prompt_tokens.total"),
    "other keys": (
        lambda r: change_json(r / "multi_turn_stats.json", drop_keys),
        "has no intervals, parameters.think, as of an older version",
    ),
    "a shallow key": (
        lambda r: change_json(r / "single_turn_stats.json", lambda s: s.update(sharing_fraction=0.5)),
        "has no sharing_fraction.mean, sharing_fraction.median, as of",
    ),
    "cut in a row": (lambda r: cut(r / "multi_turn_request_metrics.csv", 30), "is cut, damaged or of another run"),
    "cut after a row": (lambda r: cut_lines(r / "multi_turn_request_metrics.csv"), "is cut, damaged or of another run"),
    "blocks cut": (lambda r: cut_lines(r / "multi_turn_block_metrics.csv"), "multi_turn_block_metrics.csv: is cut"),
    "empty": (lambda r: (r / "multi_turn_request_metrics.csv").write_text(""), "has no conversation_id, turn"),
    "no columns": (
        lambda r: (r / "multi_turn_request_metrics.csv").write_text("a,b\n1,2\n"), "as of an older version"
    ),
    "no number": (lambda r: swap_first(r / "multi_turn_request_metrics.csv", "x"), "is cut, damaged"),
    "no text": (lambda r: (r / "multi_turn_block_metrics.csv").write_bytes(b"\xff\xfe\x00"), "is cut, damaged"),
    "other blocks": (
        lambda r: shift_times(r / "multi_turn_block_metrics.csv"), "multi_turn_block_metrics.csv: is cut, damaged"
    ),
    "another mode": (
        lambda r: (r / "multi_turn_stats.json").write_text((r / "single_turn_stats.json").read_text()),
        "is of the mode 'single_turn'",
    ),
    "a figure cut": (lambda r: (r / "figures/40-lru-curve.csv").write_text(""), "40-lru-curve.csv: is cut, damaged"),
    "a figure of old": (
        lambda r: (r / "figures/50-policies.csv").write_text("seed,policy\n0,lru\n"), "has no token, low, high"
    ),
    "facts cut": (lambda r: (r / "facts/40-cache-size.json").write_text("{"), "40-cache-size.json: is no valid JSON"),
    "no facts": (lambda r: (r / "facts/40-cache-size.json").write_text("[]"), "40-cache-size.json: holds no facts"),
}  # fmt: skip


def drop_keys(stats):
    del stats["intervals"], stats["parameters"]["think"]


def cut(path, least):
    path.write_bytes(path.read_bytes()[:-least])


def cut_lines(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def swap_first(path, turn):
    head, row, *rows = path.read_text().splitlines()
    cells = row.split(",")
    cells[head.split(",").index("turn")] = turn
    path.write_text("\n".join([head, ",".join(cells), *rows]) + "\n")


def shift_times(path):
    head, *rows = path.read_text().splitlines()
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[3] = cells[0][3]
    path.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_report_that_is_not_whole_is_refused(whole, report, tmp_path, capsys, damage):
    change, message = DAMAGES[damage]
    change(report)
    said = refuse(capsys, whole, report, out=tmp_path / "out")
    assert message in said and "make report NAME=copy again" in said and str(report) in said


def test_what_is_no_report_is_refused(whole, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for given, message in {
        "empty": "is no report: it has no *_stats.json; expected a folder that make report wrote",
        "file": "is a file; expected a report's folder", "nowhere": "there is no such folder, nor one of that name",
    }.items():  # fmt: skip
        assert message in refuse(capsys, whole, tmp_path / given, out=tmp_path / "out")
    assert "compare got 1 reports; expected two or more" in refuse(capsys, whole, out=tmp_path / "out")
    assert main(["compare", str(whole), str(whole), "--out", str(tmp_path / "out")]) == 0
    said = refuse(capsys, whole, tmp_path / "out", out=tmp_path / "more")
    assert "is a comparison, not a report" in said
    with pytest.raises(SystemExit) as ended:
        main(["compare"])
    assert ended.value.code == 2


def test_reports_without_a_common_measure_are_refused(whole, report, tmp_path, capsys):
    def empty(stats):
        for path in ("token_hit_rate", "block_reuse_rate", "blocks_reused_fraction"):
            stats[path] = None
        for name in ("with_generated_tokens", "without_template_tokens"):
            stats[name]["token_hit_rate"] = None
        for name in ("sharing_fraction", "block_hit_count"):
            stats[name] = dict.fromkeys(stats[name])
        stats["requests"], stats["prompt_tokens"]["total"], stats["blocks"] = 0, 0, {"accesses": 0, "distinct": 0}

    for mode in ("single_turn", "multi_turn"):
        change_json(report / f"{mode}_stats.json", empty)
        for name in ("request", "block"):
            path = report / f"{mode}_{name}_metrics.csv"
            path.write_text(path.read_text().partition("\n")[0] + "\n")
    said = refuse(capsys, whole, report, out=tmp_path / "out")
    assert "whole, copy: have no measure in common, so there is nothing to compare" in said


def test_a_comparison_replaces_nothing_but_a_comparison(whole, report, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "comparison.json").write_text('{"kind": "something"}')
    (tmp_path / "link").symlink_to(report)
    for out, message in {
        report: "is one of the compared reports", report / "sub": "lies in one of the compared reports",
        tmp_path / "link": "is one of the compared reports",
        tmp_path / "full": "holds something else than an earlier comparison", tmp_path / "file": "is no folder",
        fake: "holds something else", tmp_path: "holds something else",
    }.items():  # fmt: skip
        assert message in refuse(capsys, whole, report, out=out)
    (tmp_path / "out").mkdir()
    for _ in range(2):  # an empty folder, and an earlier comparison
        assert main(["compare", str(whole), str(report), "--out", str(tmp_path / "out")]) == 0
        stale = tmp_path / "out" / "stale.txt"
        assert not stale.exists()
        stale.write_text("x")


def test_a_comparison_that_fails_leaves_the_earlier_one(whole, tmp_path, monkeypatch):
    from kvprefix.report.comparison import write

    given = ["compare", str(whole), str(whole), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(write, "write_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def list_names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_folder_is_put_back_that_a_killed_run_set_aside(tmp_path):
    out, aside = tmp_path / "out", tmp_path / ".out.making" / "old"
    aside.mkdir(parents=True)
    (aside / "kept.txt").write_text("x")
    with pytest.raises(RuntimeError), replace_folder(out) as folder:
        (folder / "new.txt").write_text("y")
        raise RuntimeError
    assert list_names(tmp_path) == ["out"] and list_names(out) == ["kept.txt"]
    with replace_folder(out) as folder:
        with pytest.raises(InputError, match="another run is writing there"), replace_folder(out):
            pass
        (folder / "new.txt").write_text("y")
    assert list_names(tmp_path) == ["out"] and list_names(out) == ["new.txt"]


def test_names_with_odd_characters_are_shown_as_they_are(whole, report, tmp_path, capsys):
    odd = report.rename(tmp_path / ODD)
    change_json(odd / "facts/20-prefix-sharing.json", lambda one: one["facts"]["sharing"].update(requests=ODD))
    assert main(["compare", str(whole), str(odd), str(odd), "--out", str(tmp_path / f"out {ODD}")]) == 0
    assert f"{ODD} against whole: not separated" in capsys.readouterr().out
    out = tmp_path / f"out {ODD}"
    page, markdown = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "<i>" not in page and "a&amp;b_&lt;i&gt;$%#" in page and "a&amp;b_&lt;i&gt;$%# (2)" in page
    assert r"a\&b\_\<i>\$%#" in markdown and "<i>" not in markdown.replace(r"\<i>", "")
    for path in (out / "tables").glob("*.tex"):
        lines = [line for line in path.read_text().split("\n") if not line.startswith("%")]
        assert "a&b" not in "\n".join(lines) and "<i>" not in "\n".join(lines)
    assert r"a\&b\_\textless{}i\textgreater{}\$\%\#" in (out / "tables/20-multi-turn.tex").read_text()
    assert json.loads((out / "comparison.json").read_text())["reports"] == ["whole", ODD, f"{ODD} (2)"]
    assert ODD in (out / "figures/30-sharing-fraction.csv").read_text()


def test_a_name_is_looked_for_below_reports(tmp_path, monkeypatch):
    top = tmp_path / "project"
    for folder in ("notebooks", "reports/one", "reports/two", "elsewhere/one"):
        (top / folder).mkdir(parents=True)
    (top / "environment.yml").write_text("")
    monkeypatch.chdir(top)
    assert find_report("one") == top / "reports/one" and find_report("elsewhere/one").resolve() == top / "elsewhere/one"
    monkeypatch.chdir(top / "elsewhere")
    assert find_report("one").resolve() == top / "elsewhere/one" and find_report("two") == top / "reports/two"
    for blank in ("", " ", "\0"):
        with pytest.raises(InputError, match="expected a report's folder"):
            find_report(blank)
    with pytest.raises(InputError, match="expected|holds"):
        check_output(" ", [])


def test_the_command_ends_with_2_as_a_program(tmp_path):
    command = [sys.executable, "-m", "kvprefix", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, cwd=LIB, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "no such folder" in done.stderr
