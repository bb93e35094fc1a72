"""The paper kit: floats that fit a column, numbers as the report says them, an article that compiles."""

import re
import subprocess
import zipfile

import pandas as pd
import pytest
from drawn import draw_line
from papers import compile_tex, need_program, write_kit

from kvprefix.__main__ import main
from kvprefix.report.page.join import arrange, write_report
from kvprefix.report.paper import build
from kvprefix.report.paper.floats import PLACES, write_figure, write_table
from kvprefix.report.paper.kit import write_paper
from kvprefix.report.paper.numbers import HEADLINES, list_headlines, show_headlines, write_numbers
from kvprefix.report.paper.prose import write_prose
from kvprefix.report.sections import Section
from kvprefix.report.tables import Narrow, narrow_cells, show_cells
from kvprefix.traces.parameters import Parameters


def table(name, frame, caption="A caption.", narrow=None):
    shown = show_cells(frame)
    return {"kind": "table", "name": name, "caption": caption, **shown, "narrow": narrow_cells(shown, narrow)}


def figure(name, caption="A caption."):
    return {"kind": "figure", "name": name, "caption": caption}


def text(heading, said):
    return {"kind": "text", "heading": heading, "text": said}


HOSTILE = [
    "95 % of a_b & c", "−0.48 ≥ x² × 10⁻³ → ∞", "naïve Ångström Łódź ĳ ą", "$x^2$ #1 {a}", "~^<>|`", "  ",
    "\\input{/etc/passwd} \\end{table}", "中文标题" * 12, "שלום עולם مرحبا بالعالم",
    "[option] *star --double ''quotes`` \"q\"", "😀👍🏽👨\u200d👩\u200d👧 a\u0301b\u0302c\u20dd",
    "\u202eturned\u202c \x1b[31mred\x07\x00", "x" * 200,
    "a/very/long/path_with-parts.and=signs/that?never&stops%20" * 3, "Ω µ ß ½ … “q” ‘q’ — – « » ¡ ¿ £ § © †",
]  # fmt: skip


def test_the_floats_of_a_figure_are_its_two_drawings():
    item = figure("40-lru-curve", "Rates in 50 % of a_b.")
    column, page = (write_figure(item, place) for place in PLACES)
    assert r"\begin{figure}" in column and r"\includegraphics[width=\columnwidth]{40-lru-curve-column}" in column
    assert r"\caption{Rates in 50\,\% of a\_b.}" in column and r"\label{fig:40-lru-curve}" in column
    assert r"\begin{figure*}" in page and r"\includegraphics[width=\textwidth]{40-lru-curve-page}" in page
    assert r"\label{fig:40-lru-curve-page}" in page


def test_a_table_has_its_narrow_form_in_a_column_and_is_whole_on_a_page():
    frame = pd.DataFrame({"policy": ["LRU"], "rate": [-0.5], "low": [1], "high": [2], "n": [3], "last": [4]})
    item = table("50-x", frame, narrow=Narrow(frame[["policy", "rate"]], {"rate": "{:.2f}"}, ("A note: 5 %.",)))
    column, page = (write_table(item, place) for place in PLACES)
    assert r"\begin{tabular}{@{}lr@{}}" in column and r"LRU & $-$0.50 \\" in column and r"A note: 5\,\%." in column
    assert r"\begin{table*}" in page and r"policy & rate & low & high & n & last \\" in page
    assert r"\toprule" in column and r"\label{tab:50-x}" in column and r"\label{tab:50-x-page}" in page


def test_a_long_table_goes_on_in_a_next_float_under_the_same_number():
    written = write_table(table("10-long", pd.DataFrame({"k": range(150)})))
    assert written.count(r"\begin{table}") == 3 and written.count(r"\label{") == 1
    assert written.count(r"\addtocounter{table}{-1}") == written.count("(continued)") == 2
    assert [int(k) for k in re.findall(r"^(\d+) \\\\$", written, re.M)] == list(range(150))


@pytest.mark.parametrize("markdown, latex", [
    ("**5 %** of `a_b`, *so*", r"\textbf{5\,\%} of \texttt{a\_b}, \emph{so}"),
    ("a\\_b \\[x\\] 3 \\* 4", r"a\_b [x] 3 * 4"),
    ("- one\n- two", "\\begin{itemize}\n\\item one\n\n\n\\item two\n\n\n\\end{itemize}"),
    ("`\\x{}`", r"\texttt{\char92{}x\char123{}\char125{}}"),
    ("[a](http://b.c)", "a"), ("<b>x</b>", r"\textless{}b\textgreater{}x\textless{}/b\textgreater{}"), ("", ""),
])  # fmt: skip
def test_what_is_said_is_latex(markdown, latex):
    written = re.sub(r"\n+", "\n", write_prose(markdown))
    assert written == re.sub(r"\n+", "\n", latex)


def test_any_text_of_strangers_compiles_and_nothing_is_too_wide(tmp_path):
    need_program("pdflatex")
    frame = pd.DataFrame({"name": HOSTILE, "n": range(len(HOSTILE)), "x | y_z %": HOSTILE[::-1]})
    sections = [
        {"title": one, "items": [text(one, "Said."), figure(f"1{k}-f", one), table(f"1{k}-t", frame[:3], one)]}
        for k, one in enumerate(HOSTILE)
    ]  # fmt: skip
    sections += [{"title": "All", "items": [table("90-all", frame), {**text("", "\n".join(HOSTILE)), "plain": True}]}]
    sections[0]["failed"] = HOSTILE[6]
    assert not compile_tex(write_kit(tmp_path, *sections, title=HOSTILE[7]))


def test_every_character_that_latex_is_said_to_print_compiles(tmp_path):
    from kvprefix.files.latex_characters import CHARACTERS

    need_program("pdflatex")
    letters = "".join(map(chr, range(0xA1, 0x250)))
    ascii_only = "".join(map(chr, range(0x20, 0x7F)))
    items = [text("", ""), {**text("", " ".join([*CHARACTERS, *letters, *ascii_only])), "plain": True}]
    assert not compile_tex(write_kit(tmp_path, {"title": "Characters", "items": items}))


def test_a_figure_without_a_drawing_has_no_float(tmp_path):
    sections = arrange({"10-a": {"title": "A", "items": [figure("10-lost")]}})
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/tab-10-old.tex").write_text("of an earlier run")
    (tmp_path / "paper/all.pdf").write_text("of an earlier run")
    write_paper(tmp_path, sections, "T")
    assert not list((tmp_path / "paper").glob("*-10-*.tex")) and not (tmp_path / "paper/all.pdf").exists()
    assert "% fig-10-lost.tex is missing" in (tmp_path / "paper/all.tex").read_text()


def test_numbers_are_macros_and_what_a_run_has_not_is_a_comment():
    sharing = {"token_hit_rate": 0.62159, "gap_median_s": 113.2, "never_reused": None}
    needs = [{"share": 0.5, "gib": 44.315}, {"share": 0.9, "gib": 248.1}]
    found = {"20-prefix-sharing": {"sharing": sharing}, "40-cache-size": {"lru": {"needs": needs}}}
    written = write_numbers(*show_headlines(found)).split("\n")
    said = {line.split("}")[0].split("\\KV")[1]: line for line in written if line.startswith(r"\newcommand")}
    assert r"{62.2\,\%}" in said["TokenHitRate"] and r"{113\,s}" in said["GapMedian"]
    assert r"{44.3\,GiB}" in said["MemoryForHalf"] and r"{248.1\,GiB}" in said["MemoryForMost"] and len(said) == 4
    assert sum(line.startswith("% no \\KV") for line in written) == len(HEADLINES) - 4
    assert all(re.fullmatch("[A-Za-z]+", one.macro) for one in HEADLINES)
    assert len({one.macro for one in HEADLINES}) == len(HEADLINES)


def test_numbers_of_sessions_stand_in_the_place_of_those_of_chats():
    found = {"15-agents": {"agent_sessions": {"sessions": 60, "rate": 0.9587, "rate_interval": [0.951, 0.965]}}}
    both = {"20-prefix-sharing": {"sharing": {"token_hit_rate": 0.5}}, **found}
    shown = {one.macro: text for one, text in show_headlines(both)[0]}
    assert shown["TokenHitRate"] == "50.0 %" and shown["Sessions"] == "60"
    macros = [one.macro for one in list_headlines(found)]
    assert len(set(macros)) == len(macros) and {one.macro for one in HEADLINES} < set(macros)
    written = write_numbers(*show_headlines(found)).split("\n")
    assert [line.partition(" %")[0] for line in written if line.startswith(r"\newcommand")] == [
        r"\newcommand{\KVSessions}{60}", r"\newcommand{\KVTokenHitRate}{95.9\,\%}",
        r"\newcommand{\KVTokenHitRateLow}{95.1\,\%}", r"\newcommand{\KVTokenHitRateHigh}{96.5\,\%}",
    ]  # fmt: skip


@pytest.fixture
def report(tmp_path):
    """A small report of one section."""
    section = Section("20-prefix-sharing", "Sharing", tmp_path, Parameters())
    section.keep("sharing", {"token_hit_rate": 0.5})
    section.say("Rates", "The rate is 50.0 %.")
    section.show_figure("line", "A line.", draw_line)
    section.show_table("numbers", "Numbers.", pd.DataFrame({"n": [1, 2]}))
    write_report(tmp_path, "A report")
    return tmp_path


def test_a_report_brings_its_kit_and_its_markdown_shows_column_drawings(report):
    names = {path.name for path in (report / "paper").iterdir()}
    assert names == {
        "20-line-column.pdf", "20-line-column.png", "20-line-page.pdf", "all.md", "all.tex", "numbers.tex",
        "fig-20-line.tex", "fig-20-line-page.tex", "tab-20-numbers.tex", "tab-20-numbers-page.tex",
    }  # fmt: skip
    assert "![A line.](20-line-column.png)" in (report / "paper/all.md").read_text()
    assert r"\newcommand{\KVTokenHitRate}{50.0\,\%}" in (report / "paper/numbers.tex").read_text()


def test_the_command_makes_pdf_and_docx_of_equal_bytes(report, capsys):
    need_program("pdflatex")
    need_program("pandoc")
    made = []
    for _ in range(2):
        assert main(["paper", str(report)]) == 0
        made.append([(report / "paper" / name).read_bytes() for name, _ in build.PACKAGES.values()])
    assert made[0] == made[1] and "all.docx is made" in capsys.readouterr().out
    assert not list((report / "paper").glob("*.aux"))


def test_the_docx_has_the_texts_the_picture_and_the_styles(report):
    need_program("pandoc")
    build.build_paper(report)
    with zipfile.ZipFile(report / "paper/all.docx") as file:
        document = file.read("word/document.xml").decode()
        assert [name for name in file.namelist() if name.startswith("word/media/")]
    assert "CaptionedFigure" in document and "ImageCaption" in document and "TableCaption" in document
    back = ["pandoc", report / "paper/all.docx", "--to", "plain", "--wrap", "none"]
    said = subprocess.run(back, capture_output=True, text=True, check=True).stdout
    assert "The rate is 50.0 %." in said and "Table 1, 20-numbers. Numbers." in said


def test_the_command_names_what_is_missing(report, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(report))
    assert main(["paper", str(report)]) == 3
    said = capsys.readouterr().err
    assert "pdflatex is missing" in said and "texlive-latex-recommended" in said and "pandoc" in said
    assert not (report / "paper/all.pdf").exists()


def test_a_folder_that_is_no_report_is_refused(tmp_path, capsys):
    assert main(["paper", str(tmp_path)]) == 2
    assert "all.tex: is not there; make the report first" in capsys.readouterr().err


def test_what_latex_refuses_is_said_and_the_old_file_stays(report, capsys):
    need_program("pdflatex")
    (report / "paper/all.pdf").write_text("old")
    (report / "paper/tab-20-numbers.tex").write_text(r"\nonsense")
    assert main(["paper", str(report)]) == 2
    assert "Undefined control sequence" in capsys.readouterr().err
    assert (report / "paper/all.pdf").read_text() == "old"


def test_a_kit_reads_no_file_outside_its_folder(report, tmp_path_factory):
    need_program("pdflatex")
    secret = tmp_path_factory.mktemp("other") / "secret.tex"
    secret.write_text("secret")
    (report / "paper/tab-20-numbers.tex").write_text(rf"\input{{{secret}}}")
    with pytest.raises(build.InputError, match="failed"):
        build.build_paper(report)
