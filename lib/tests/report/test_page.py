"""The report's page: valid, complete in one file, linked within itself, and the same in Markdown."""

import base64
import hashlib
import io
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from drawn import draw_line
from pages import TITLE, draw_wide, make_report, parse, words
from PIL import Image

from kvprefix.files.paths import InputError
from kvprefix.report.page.html import FIRST, LONG, fold_table, names_rows
from kvprefix.report.page.join import arrange, write_report
from kvprefix.report.page.markdown import render_markdown
from kvprefix.report.page.pictures import choose_small, embed_picture
from kvprefix.report.plots.axes import make_axes
from kvprefix.report.section_files import read_sections
from kvprefix.report.sections import Section

FIGURE, TEXT = {"kind": "figure", "caption": "c"}, {"kind": "text", "text": "t"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def tree(report):
    return parse(report.read_text())


def section(title, *items):
    return {"title": title, "items": list(items)}


def named(tree, anchor):
    (found,) = [node for node in tree.iter() if node.get("id") == anchor]
    return found


# ---- The page as a whole


def test_the_page_is_valid_and_its_links_lead_somewhere(report, tree):
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    links = [node.get("href") for node in tree.iter("a")]
    assert len(set(ids)) == len(ids) > 15
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    files = [link for link in links if "#" not in link and "://" not in link]
    assert len(files) > 15 and all((report.parent / file).is_file() for file in files)
    assert [link for link in links if "://" in link] == ["https://example.org"]
    assert [words(node) for node in tree.iter("title")] == [TITLE] == [words(node) for node in tree.iter("h1")]


def test_html_validate_finds_nothing(report):
    tool = shutil.which("html-validate")
    if not tool:
        pytest.skip("no html-validate on this machine (npm install html-validate)")
    settings = report.parent / "settings.json"
    settings.write_text('{"root": true, "extends": ["html-validate:recommended", "html-validate:document"]}')
    command = [tool, "--config", str(settings), "--formatter", "text", "--max-warnings", "0", str(report)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_the_page_asks_for_nothing_and_runs_its_own_script_only(tree):
    asked = [node.get(name, "") for node in tree.iter() for name in ("src", "srcset")]
    assert all(one.startswith("data:image/png;base64,") for one in asked if one)
    assert [node.get("href") for node in tree.iter("link")] == ["data:,"]
    (policy,) = [node.get("content") for node in tree.iter("meta") if node.get("http-equiv")]
    (script,) = tree.iter("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and policy.endswith(f"script-src 'sha256-{digest}'")
    assert not [node for node in tree.iter() if node.get("style") or node.get("onclick")]


def test_a_report_without_sections_is_a_page(tmp_path):
    page = parse(write_report(tmp_path, "Nothing <yet>").read_text())
    assert [words(node) for node in page.iter("h1")] == ["Nothing <yet>"]


# ---- Numbers and anchors


def test_figures_and_tables_are_numbered_through_and_what_is_left_out_comes_last():
    absent, table = {"kind": "absent", "text": "no server"}, {"kind": "table", "name": "20-t"}
    given = {"10-a": section("A", FIGURE | {"name": "10-f"}, table | {"name": "10-t"}), "15-none": section("N", absent),
             "20-b": section("B", absent, table, FIGURE | {"name": "20-f"})}  # fmt: skip
    sections = arrange(given)
    assert list(sections) == ["10-a", "20-b", "absent"]
    numbered = [(one["name"], one["number"]) for name in ("10-a", "20-b") for one in sections[name]["items"]]
    assert numbered == [("10-f", 1), ("10-t", 1), ("20-t", 2), ("20-f", 2)]
    assert [one["text"] for one in sections["absent"]["items"]] == ["no server"] * 2
    assert "number" not in given["10-a"]["items"][0]


def test_anchors_are_made_of_titles_and_a_second_equal_one_has_a_number():
    text = TEXT | {"heading": "What it does"}
    sections = arrange({
        "10-a": section("Cache size", text, text, FIGURE | {"name": "10-curve"}), "20-b": section("Cache size", text),
        "30-c": section("?", TEXT | {"heading": ""}), "40-d": section("Contents", text),
    })  # fmt: skip
    assert [one["anchor"] for one in sections.values()] == ["cache-size", "cache-size-2", "part", "contents-2"]
    anchors = [item.get("anchor") for one in sections.values() for item in one["items"]]
    assert anchors == [
        "cache-size-what-it-does", "cache-size-what-it-does-2", "figure-10-curve", "cache-size-2-what-it-does", None,
        "contents-2-what-it-does",
    ]  # fmt: skip


def test_an_anchor_stays_if_sections_come_before_it(tmp_path):
    make_report(tmp_path)
    before = arrange(read_sections(tmp_path))["40-cache-size"]
    Section("05-new", "New", tmp_path).show_figure("first", "Now the first.", draw_line)
    after = arrange(read_sections(tmp_path))["40-cache-size"]
    pairs = list(zip(before["items"], after["items"], strict=True))
    assert all(old["anchor"] == new["anchor"] for old, new in pairs) and before["anchor"] == after["anchor"]
    assert [new["number"] - old["number"] for old, new in pairs if old["kind"] == "figure"] == [1, 1]


def test_the_contents_list_all_sections_and_their_headings(tree):
    (contents,) = tree.iter("nav")
    listed = [words(link) for link in contents.iter("a")]
    assert listed == [
        "The answer", "Method", "Definitions", "Cache size", "How much memory", "What decides a hit", "Eviction",
        "Not in this report",
    ]  # fmt: skip
    headings = {words(node).removesuffix(" #") for name in ("h2", "h3") for node in tree.iter(name)}
    assert headings == set(listed)


# ---- Page one


def test_page_one_is_sentences_with_their_places_the_next_step_caveats_and_small_figures(tree):
    (front,) = [node for node in tree.iter("div") if node.get("class") == "front"]
    (findings,) = [node for node in front.iter("ol") if node.get("class") == "findings"]
    figure = "Cache size · Figure 1, 40-lru-curve"
    assert [words(node) for node in findings.iter("li")] == [
        f"Sentence 1 says 1.5 %. {figure}", "Sentence 2 says 2.5 %. Cache size · Figure 2, 40-reuse",
        "Sentence 3 says 3.5 %. Cache size", "Sentence 4 says 4.5 %. Eviction", f"Sentence 5 says 5.5 %. {figure}",
    ]  # fmt: skip
    links = [link.get("href") for link in next(findings.iter("li")).iter("a")]
    assert links == ["#cache-size", "#figure-40-lru-curve"]
    assert [words(node) for node in front.iter("figcaption")] == [figure, "Cache size · Figure 2, 40-reuse"]
    said = words(front)
    order = ["The answer", "The lead.", "Sentence 1", "Do this next", "Run make report.", "First caveat.", "Third"]
    assert [said.index(part) for part in order] == sorted(said.index(part) for part in order)
    body = [node.get("class") or node.get("id") for node in next(tree.iter("main"))]
    assert body == [None, "front", "contents", "rest"]  # the answer comes before the contents


def test_page_one_in_markdown(report):
    markdown = (report.parent / "report.md").read_text()
    place = "[Cache size](#cache-size), [Figure 1, 40-lru-curve](figures/40-lru-curve.png)"
    small = [f"![Figure {k}, {name}](paper/{name}-column.png)<br>[Cache size](#cache-size), [Figure {k}, {name}]"
             f"(figures/{name}.png)" for k, name in ((1, "40-lru-curve"), (2, "40-reuse"))]  # fmt: skip
    assert f"## The answer\n\nThe **lead**.\n\n1. Sentence 1 says **1.5 %**. ({place})\n2. " in markdown
    assert "\n3. Sentence 3 says **3.5 %**. ([Cache size](#cache-size))\n4. " in markdown
    assert "> **Do this next.** Run `make report`.\n\n- First caveat.\n- Second" in markdown
    assert f"| | |\n|:-:|:-:|\n| {small[0]} | {small[1]} |\n\n## Method" in markdown


@pytest.mark.parametrize("count", [1, 3, 10])
def test_small_figures_are_at_most_eight_each_once(count):
    figures = [FIGURE | {"name": f"10-{k}"} for k in range(count)]
    findings = [{"text": "x", "figure": one["name"]} for one in [*figures, figures[0]]]
    item = {"kind": "findings", "lead": "", "findings": findings, "next": "", "caveats": []}
    sections = arrange({"00-answer": section("One", item), "10-a": section("A", *figures)})
    small = sections["00-answer"]["items"][0]["figures"]
    assert [one["figure"]["name"] for one in small] == [f"10-{k}" for k in range(min(count, 8))]
    rows = [line for line in render_markdown("T", sections).split("\n") if line.startswith("| ![")]
    assert [line.count("-column.png") for line in rows] == {1: [1], 3: [2, 1], 10: [2, 2, 2, 2]}[count]
    assert all(line.count("|") == 3 for line in rows)


def test_an_address_in_markdown_is_the_one_that_github_gives():
    item = {"kind": "findings", "lead": "", "findings": [{"text": "x", "figure": "20-f"}], "next": "", "caveats": []}
    sections = arrange({
        "00-answer": section("One", item), "10-a": section("A", TEXT | {"heading": "Cache: size"}),
        "20-b": section("Cache size", FIGURE | {"name": "20-f"}),
    })  # fmt: skip
    assert "1. x ([Cache size](#cache-size-2)," in render_markdown("Cache size", sections)


# ---- Figures


def test_a_figure_has_its_number_its_caption_and_its_files(tree):
    figure = named(tree, "figure-40-lru-curve")
    (caption,) = figure.iter("figcaption")
    text = "Figure 1, 40-lru-curve. Hit rate over capacity; 5 % and more. CSV PDF column PDF TeX #"
    assert words(caption) == text and "5\N{NO-BREAK SPACE}%" in "".join(caption.itertext())
    assert [link.get("href") for link in caption.iter("a")] == [
        "figures/40-lru-curve.csv", "figures/40-lru-curve.pdf", "paper/40-lru-curve-column.pdf",
        "paper/fig-40-lru-curve.tex", "#figure-40-lru-curve",
    ]  # fmt: skip
    (image,) = figure.iter("img")
    (source,) = figure.iter("source")  # a phone shows what was drawn for a column
    assert (image.get("width"), source.get("width")) == ("1050", "510") and image.get("alt") == "Figure 1, 40-lru-curve"
    assert not list(named(tree, "figure-40-reuse").iter("source"))  # is as narrow


def test_a_file_that_is_not_there_is_not_linked(tmp_path):
    section = Section("10-a", "A", tmp_path)
    section.show_figure("f", "F.", draw_line)
    (tmp_path / "figures/10-f.csv").unlink()
    (tmp_path / "paper/10-f-column.pdf").unlink()  # so its float is not made
    page = parse(write_report(tmp_path, "T").read_text())
    assert [words(link) for link in page.iter("a") if not link.get("href").startswith("#")] == ["PDF"]


def test_an_embedded_picture_is_small_and_looks_the_same(tmp_path):
    (tmp_path / "figures").mkdir()
    figure, axes = make_axes()
    for k in range(8):
        axes.plot([0, k], [1, 2 * k])
    figure.savefig(path := tmp_path / "figures/a.png", dpi=300, facecolor="white")
    shown = embed_picture(tmp_path, "figures/a.png")
    data = base64.b64decode(shown["src"].removeprefix("data:image/png;base64,"))
    was, now = (np.asarray(Image.open(file).convert("RGB")).astype(int) for file in (path, io.BytesIO(data)))
    assert (shown["width"], shown["height"]) == (510, 375) and was.shape == now.shape == (750, 1020, 3)
    assert len(data) < path.stat().st_size / 2 and abs(was - now).mean() < 2
    assert embed_picture(tmp_path, "figures/a.png", 510) is None
    assert embed_picture(tmp_path, "figures/a.png", 511) == shown
    assert embed_picture(tmp_path, "figures/b.png") is None


@pytest.mark.parametrize(("height_in", "chosen"), [(3.4, "paper/a-column.png"), (5.1, "figures/a.png")])
def test_a_small_picture_is_the_column_s_unless_its_panels_are_stacked(height_in, chosen, tmp_path):
    (tmp_path / "paper").mkdir()
    assert choose_small(tmp_path, "a") == "figures/a.png"
    make_axes(3.4, height_in)[0].savefig(tmp_path / "paper/a-column.png", dpi=300, facecolor="white")
    assert choose_small(tmp_path, "a") == chosen


def test_a_picture_that_is_none_is_refused(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no" * 40)
    with pytest.raises(InputError, match=r"a\.png: is no PNG; make the report again"):
        embed_picture(tmp_path, "figures/a.png")


# ---- Tables


def test_a_table_has_its_number_its_caption_heads_and_files(tree):
    table = named(tree, "table-40-needs")
    assert words(next(table.iter("caption"))) == "Table 1, 40-needs. A short table."
    assert [(cell.get("scope"), words(cell)) for cell in table.iter("th")] == [
        ("col", "share"), ("col", "blocks"), ("row", "50 %"), ("row", "90 %")
    ]  # fmt: skip
    assert [link.get("href") for link in table.iter("a")] == [
        "tables/40-needs.csv", "tables/40-needs.md", "tables/40-needs.tex", "paper/tab-40-needs.tex",
        "#table-40-needs",
    ]  # fmt: skip
    assert not list(table.iter("details"))


def test_every_table_can_be_scrolled_by_itself_and_names_its_columns(tree):
    parents = {child: parent for parent in tree.iter() for child in parent}
    tables = list(tree.iter("table"))
    assert len(tables) == 7
    for table in tables:
        region = parents[table]
        assert region.get("class") == "scroll" and region.get("tabindex") == "0"
        assert region.get("role") == "group" and region.get("aria-label")
        assert all(cell.get("scope") == "col" for cell in next(table.iter("thead")).iter("th"))


def test_a_long_table_is_folded_behind_its_main_rows(tree):
    for name, rows, caption in (("40-long", FIRST, "A long table."), ("40-folded", 3, "A table with a narrow form.")):
        shown, folded = (list(part.iter("tr")) for part in named(tree, f"table-{name}").iter("tbody"))
        assert (len(shown), len(folded)) == (rows, 60)
        (details,) = named(tree, f"table-{name}").iter("details")
        assert words(next(details.iter("summary"))) == "All 60 rows"
        assert words(next(details.iter("caption"))).endswith(f"{name}, all 60 rows. {caption}")
    notes = [words(node) for node in tree.iter("p") if node.get("class") == "note"]
    assert notes == ["Only three."]


def test_which_rows_are_the_main_ones():
    rows = [[str(k)] for k in range(LONG + 1)]
    table = {"head": ["n"], "rows": rows, "numeric": [True], "narrow": {"head": ["n"], "rows": rows, "notes": ["x"]}}
    assert fold_table(table | {"rows": rows[:LONG]}) is None
    assert fold_table(table)["rows"] == rows[:FIRST] and fold_table(table)["notes"] == []
    shorter = {"head": ["m"], "rows": rows[:LONG], "notes": ["y"]}
    assert fold_table(table | {"narrow": shorter})["head"] == ["m"]


@pytest.mark.parametrize(
    ("names", "how"),
    [(["LRU", "OPT"], "short"), (["a" * 24, "b"], "short"), (["a" * 25, "b"], "long"), (["a", "a"], None),
     (["", "a"], None), ([], "short")],
)  # fmt: skip
def test_a_first_column_names_rows_if_each_has_a_name_of_its_own(names, how):
    assert names_rows({"head": ["policy", "rate"], "rows": [[name, "1"] for name in names]}) == how
    assert names_rows({"head": ["policy"], "rows": [[name] for name in names]}) is None


# ---- Failed and left out


def test_what_is_left_out_is_one_line_at_the_end(report, tree):
    *_, last = (node for node in tree.iter("section"))
    assert words(last) == "Not in this report # A live server: there is no recording of one."
    end = "## Not in this report\n\n- A live server: there is no recording of one.\n"
    assert (report.parent / "report.md").read_text().endswith(end)


def test_a_failed_section_is_a_box_and_its_figure_is_not_missed(tree):
    boxes = [words(node) for node in tree.iter("aside")]
    assert boxes == [
        "This report is not complete. Failed: 50-eviction. The reasons stand in their sections.",
        "This section failed. The notebook 50-eviction stopped at cell 7: ZeroDivisionError: division by zero. "
        "It has made nothing before that.",
    ]  # fmt: skip
    assert "50-policies" not in words(tree)


def test_a_finding_without_a_section_and_a_page_one_without_findings_are_shown(tmp_path):
    findings = [{"text": "Alone.", "figure": "10-none", "notebook": "10-none"}]
    for name, item in (("00-answer", {"findings": findings}), ("00-b", {"findings": []})):
        item |= {"kind": "findings", "next": "", "caveats": []}
        Section(name, f"Title {name}", tmp_path).record("findings", item)
    page = parse(write_report(tmp_path, "T").read_text())
    fronts = [words(node) for node in page.iter("section")]
    assert fronts == ["Title 00-answer # Alone.", "Title 00-b #"]
    assert "## Title 00-answer\n\n1. Alone.\n\n## Title 00-b\n" in (tmp_path / "report.md").read_text()


def test_text_from_outside_is_text_wherever_it_stands(tmp_path):
    odd = "</title><script>alert(1)</script> ![x](figures/10-f.png) <b onclick='x'>&amp; \"q\" \u202e`c`\n# h"
    shown = "</title><script>alert(1)</script> ![x](figures/10-f.png) <b onclick='x'>&amp; \"q\" `c` # h"
    section = Section("10-a", odd, tmp_path)
    section.say(odd, odd, plain=True)
    section.show_figure("f", odd, draw_wide)
    section.show_table("t", odd, pd.DataFrame({odd: [odd, "y"], "n": [1, 2]}))
    section.leave_out(odd)
    said = odd.replace("\u202e", "")  # in Markdown the caller escapes
    section.record("findings", {"kind": "findings", "lead": said, "findings": [{"text": said, "figure": "10-f"}],
                                "next": said, "caveats": [said]})  # fmt: skip
    page = write_report(tmp_path, odd).read_text()
    tree = parse(page)
    for tag, start in (("title", ""), ("h1", ""), ("h2", ""), ("h3", ""), ("figcaption", "Figure 1, 10-f. "),
                       ("caption", "Table 1, 10-t. "), ("th", "")):  # fmt: skip
        assert any(words(node).startswith(start + shown) for node in tree.iter(tag)), tag
    assert not list(tree.iter("b"))[0].attrib and not [node for node in tree.iter() if node.get("onclick")]
    assert len(list(tree.iter("script"))) == 1
    findings = next(node for node in tree.iter("div") if node.get("class") == "front")
    assert "<script>alert(1)</script>" in words(findings)  # Markdown: its HTML is text
    assert "\u202e" not in page and page.startswith("<!DOCTYPE html>")
