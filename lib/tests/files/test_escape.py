"""Text from outside is shown as it is: in Markdown, HTML, LaTeX, figures, and through the whole chain of a report."""

import html
import json
import re

import pandas as pd
import pytest
from drawn import draw_line
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from places import LIB, PROJECT
from samples import record, save_small_tokenizer

from kvprefix.files.escape import code_markdown, escape_latex, escape_markdown, one_line, plain_label
from kvprefix.files.latex_characters import CHARACTERS
from kvprefix.live import show as live_show
from kvprefix.live.show import show_recording
from kvprefix.report.notebooks import execute_notebooks
from kvprefix.report.page.join import write_report
from kvprefix.report.plots.axes import make_axes
from kvprefix.report.sections import Section
from kvprefix.report.tables import save_table
from kvprefix.traces.parameters import Parameters

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
STRUCTURE = ("p", "table", "thead", "tbody", "tr", "th", "td")
HOSTILE = [
    "![x](/etc/hostname)", "[a](http://b.c 'd')", "[a]: /b", "<script>alert(1)</script>", "<!-- c -->", "</title><h2>x",
    "&lt;b&gt; &#60; &copy;", "**b** _i_ *i* __b__ ~~s~~ a_b_c", "`code` ``` $x^2$", "a|b||c\\|d", "\\\\ \\* \\",
    "# heading", "> quotation", "- item", "+ item", "--- ", "===", "1. one", "12) two", "| a | b |\n|:--|--:|",
    "line\n\n# break\r\n```\nfence", "50 % & #1 {x} ~ ^ $", "\\input{/etc/passwd}", "[x] after a row", "* after a row",
    "^^5cinput", "{{ body }}", "\u2028sep\u2029 \u202eturned\u202c \x1b[31mred\x07", "",
]  # fmt: skip


def show(markdown):
    """Return the text of rendered Markdown, and its tags without those of paragraphs and tables."""
    rendered = MARKDOWN.render(markdown)
    tags = set(re.findall(r"<(/?\w+)", rendered)) - {f"{end}{tag}" for end in ("", "/") for tag in STRUCTURE}
    return html.unescape(re.sub(r"<[^>]*>", "\n", rendered)).split("\n"), tags


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_that_text_in_markdown(text):
    shown, tags = show(escape_markdown(text))
    assert not tags and "".join(shown) == one_line(text)
    shown, tags = show(f"*Figure x.* ({escape_markdown(text)}) and so on: {escape_markdown(text)}.")
    assert tags == {"em", "/em"} and "".join(shown) == f"Figure x. ({one_line(text)}) and so on: {one_line(text)}."


@given(st.text(st.sampled_from("ab1 \\`*_[]()<>#+-.!|~$&;:=\"'{}\n\t/é"), max_size=20))
def test_any_text_of_punctuation_is_that_text_in_markdown(text):
    shown, tags = show(escape_markdown(text))
    assert not tags and "".join(shown) == one_line(text)


@given(st.text(st.sampled_from("ab `\\<[*\n"), max_size=12))
def test_any_text_is_that_text_in_a_code_span(text):
    rendered = MARKDOWN.render(f"Data: {code_markdown(text)} (x)")
    line = one_line(text)
    assert rendered == (f"<p>Data: <code>{html.escape(line)}</code> (x)</p>\n" if line else "<p>Data:  (x)</p>\n")


def test_a_table_of_hostile_text_is_that_text_in_every_form(tmp_path):
    frame = pd.DataFrame({HOSTILE[0]: HOSTILE, "n | <b>": 1})
    save_table(frame, tmp_path / "t", "caption\n\\input{/etc/passwd}\r\\end")
    shown, tags = show((tmp_path / "t.md").read_text())
    assert not tags
    cells = [cell for cell in shown if cell.strip()]
    assert cells == [HOSTILE[0], "n | <b>", *(word for text in HOSTILE for word in (one_line(text), "1") if word)]
    lines = (tmp_path / "t.tex").read_text().split("\n")
    assert lines[0] == r"% caption \input{/etc/passwd} \end" and lines[1] == r"\begin{tabular}{lr}"
    assert len(lines) == len(HOSTILE) + 8  # caption, begin, three rules, the heading, end, and what follows the last
    assert [read_latex(line.removesuffix(r" & 1 \\")) for line in lines[5:-3]] == [one_line(text) for text in HOSTILE]
    assert not [line for line in lines[5:-3] if line.startswith(("[", "*"))]


def read_latex(text):
    """Return what LaTeX prints of escaped text; any special character that is not escaped is an error."""
    said, rest = "", text
    for sign in "−±":  # the library's own, in tables
        rest = rest.replace(CHARACTERS[sign], sign)
    named = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "`": "`"}
    named |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    while rest:
        match = re.match(r"\\(text\w+|`)\{\}|\\([&%$#_{}])|(\{\})|([^\\&%$#_{}~^<>|])", rest)
        assert match, f"not escaped: {rest}"
        said += named[match[1]] if match[1] else match[2] or match[4] or ""
        rest = rest[match.end() :]
    return said


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_any_ascii_text_is_that_text_in_latex(text):
    assert read_latex(escape_latex(text)) == one_line(text)
    assert not re.search("--|''|``|[?!]`|,,", escape_latex(text))  # which TeX would print as one mark


@given(st.text(max_size=20))
def test_any_text_is_ascii_in_latex_and_each_group_and_formula_ends(text):
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", one_line(text))
    bare = re.sub(r"\\[&%$#_{}]", "", escape_latex(text))
    assert bare.isascii() and bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0


@pytest.mark.parametrize("text, printed", [
    ("−0.5", "$-$0.5"), ("x²", "x$^{2}$"), ("≥ ≤", r"$\geq$ $\leq$"), ("Łódź", r"\L{}\'{o}d\'{z}"),
    ("e\u0301", r"\'{e}"), ("中 a", "{}[U+4E2D] a"), ("a😀👍", "a[U+1F600 U+1F44D]"), ("“q”—’", "``q''---'"),
    ("-–", "-{}--"), ("", ""),
])  # fmt: skip
def test_what_latex_has_no_letter_for_is_shown_by_its_number(text, printed):
    assert escape_latex(text) == printed


def test_a_label_of_a_figure_is_no_formula(tmp_path):
    figure, axes = make_axes()
    axes.set_xlabel(plain_label(r"GiB, $\frac{$"))
    figure.savefig(tmp_path / "f.png")  # a formula that is none raises


def test_only_the_report_s_own_figures_are_embedded(tmp_path):
    """Even where a notebook forgets to escape: another file's bytes are no part of the page."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n" + b"secret" * 20)
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures/10-link.png").symlink_to(secret)
    front, back = Section("00-front", "A <b>", folder), Section("90-report", "C", folder)
    front.show_figure("own", "![x](/etc/hostname) ]( <i> \n# h", draw_line)
    sources = [
        secret, "../secret.png", "figures/../../secret.png", "figures/%2e%2e/%2e%2e/secret.png", "figures/10-link.png",
        "figures/none.png", "figures/", "http://a.b/c.png", "data:image/png;base64,AAAA", "/etc/hostname",
    ]  # fmt: skip
    said = "\n\n".join(f"![pic <u>]({source})" for source in sources)
    back.say("H <b>", f"{said}\n\n![by address]({secret.as_uri()}) <script>alert(1)</script>")
    page = write_report(folder, "T <i> {{ body }}").read_text()
    assert page.count("<img ") == page.count("data:image/png;base64,") == 1
    assert "c2VjcmV0" not in page and page.count("[no figure of this report: pic &lt;u&gt;]") == len(sources)
    tags = re.findall(r"<(\w+)", without_own(page))
    assert not {"script", "i", "u"} & set(tags) and [tags.count(one) for one in ("h1", "h2", "b")] == [1, 2, 1]
    assert "<title>T &lt;i&gt; {{ body }}</title>" in page


def without_own(page):
    """Return a page without its own style and script, which are those of the library's files."""
    for kind, tag in (("css", "style"), ("js", "script")):
        own = f"<{tag}>{(LIB / f'kvprefix/report/page/report.{kind}').read_text()}</{tag}>"
        assert page.count(own) == 1
        page = page.replace(own, "")
    return page


def test_page_one_embeds_the_report_s_own_small_figures_only(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"secret" * 20)
    front, back = Section("00-answer", "One", tmp_path / "out"), Section("10-a", "A", tmp_path / "out")
    for slug in ("own", "link"):
        back.show_figure(slug, "Caption <i>.", draw_line)
    for name in ("figures/10-link.png", "paper/10-link-column.png"):
        (tmp_path / "out" / name).unlink()
        (tmp_path / "out" / name).symlink_to(tmp_path / "secret.png")
    text = f"<b> ![x]({tmp_path / 'secret.png'}) ![y](paper/10-own-column.png)"
    findings = [{"text": text, "figure": name} for name in ("10-own", "10-link", "../../secret")]
    front.record("findings", {"kind": "findings", "findings": findings, "next": text, "caveats": [text]})
    page = write_report(tmp_path / "out", "T").read_text()
    assert "c2VjcmV0" not in page and page.count("[no figure of this report: x]") == 5
    assert page.count("[no figure of this report: Figure 2, 10-link]") == 2
    assert page.count("<img ") == page.count("data:image/png;base64,") == 5 + 2  # texts; itself and small
    known = {*STRUCTURE, "section", "h2", "ol", "ul", "li", "span", "a", "div", "figure", "picture", "img"}
    known |= {"figcaption"}
    assert set(re.findall(r"<(\w+)", without_own(page).partition("</header>")[2].partition("<nav")[0])) <= known


def test_what_a_server_says_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(live_show, "read_recording", lambda path: None)
    monkeypatch.setattr(live_show, "compare_recording", lambda recording: (None, {"warnings": HOSTILE, "causes": []}))
    monkeypatch.setattr(live_show, "describe_comparison", lambda summary: HOSTILE[0])
    monkeypatch.setattr(live_show, "draw_predicted_measured", draw_line)
    (tmp_path / "engine_check").mkdir()
    (tmp_path / "engine_check/recording.jsonl").touch()
    section = Section("70-engine-check", "Engine check", tmp_path)
    show_recording(section)
    text = section.items["text-A live server"]["text"]
    rendered = MARKDOWN.render(text)
    assert set(re.findall(r"<(\w+)", rendered)) == {"p", "ul", "li"}
    assert rendered.startswith(f"<p>{html.escape(HOSTILE[0])}</p>") and rendered.count("<li>") == len(HOSTILE)


def test_a_hostile_log_is_text_in_the_whole_report(tmp_path):
    """File names, speakers, ids, a tokenizer's folder and a model's are shown, and nothing else happens."""
    odd = "![n](secret.png)<b>&amp;50%$x_{$ #~^`|[a](b)"  # no slash: a file's name
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"secret" * 20)
    speaker = "![x](secret.png)<script>1</script>|$ \n# \\input{x}"  # its first 40 characters are shown
    records = [record(f"question {k}", f"answer {k}", "and then?", "so", id=f"{odd}{k % 3}") for k in range(12)]
    records += [{"id": odd, "conversations": [{"from": speaker, "value": "x"}]}]
    data, model, stamps = folder / f"data {odd}.jsonl", folder / f"model {odd}.json", folder / f"stamps {odd}"
    data.write_text("\n".join(map(json.dumps, records)))
    config = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "torch_dtype": "bfloat16"}
    model.write_text(json.dumps(config))
    stamps.write_text("\n".join(str(k) for k in range(12)))
    tokenizer = save_small_tokenizer(folder / f"tokenizer {odd}")
    parameters = Parameters(
        data=str(data), tokenizer=str(tokenizer), kv_model=str(model), arrivals=f"stamps:{stamps}",
        think=f"data:{stamps}",
    )  # fmt: skip
    sources = sorted(PROJECT.glob("notebooks/[0-9]*.ipynb"))
    assert execute_notebooks(sources, parameters, tmp_path / "out", jobs=2) == 0

    page, markdown = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    body = without_own(page).partition("</nav>")[2]
    figures = sorted(path.name for path in (tmp_path / "out/figures").glob("*.png"))
    assert body.count("<img ") == len(figures) > 10
    assert body.count("data:image/png;base64,") == body.count("<img ") + body.count("<source ")
    assert "c2VjcmV0" not in page
    known = {*STRUCTURE, "h2", "h3", "em", "strong", "code", "ul", "li", "img", "picture", "source", "figure", "b", "a"}
    known |= {"figcaption", "caption", "span", "div", "section", "details", "summary"}
    links = re.findall(r'<a[^>]* href="([^"]*)"', page)
    assert len(links) > 50 and all(link[0] == "#" or (tmp_path / "out" / link).is_file() for link in links)
    assert set(re.findall(r"<(\w+)", body)) <= known
    text = html.unescape(re.sub(r"<[^>]*>", "", body))
    for shown in (str(data), str(tokenizer), str(stamps), data.name, f"model {odd}"):
        assert shown in text, shown
    assert "unknown_speaker" in text and "<script>1</script>" in text
    assert not re.search(r"(?<!\\)!\[[xn]\]\(", re.sub("`[^\n]*`", "", markdown))
    for table in (tmp_path / "out/tables").glob("*.tex"):
        for line in table.read_text().split("\n")[1:]:
            if not re.match(r"\\(begin|end|toprule|midrule|bottomrule)", line):
                for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\")):
                    read_latex(cell.strip())
