"""The README and data cards say what is true: numbers equal the committed report's, links and files exist."""

import csv
import json
import re
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from places import LIB, PROJECT, SAMPLE

from kvprefix.formats.public_sessions import SESSIONS, SOME_IDS, SOME_SHA256
from kvprefix.report.rounding import percent
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import find_tokenizer

README = (PROJECT / "README.md").read_text(encoding="utf-8")
CARDS = (PROJECT / "data/README.md").read_text(encoding="utf-8")
REPORT = PROJECT / "reports/default"
DOCS = LIB / "docs"
LOSING = ("LFU", "S3-FIFO", "GDSF (FLOPs)")  # of policies against LRU, as the README lists them
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PAGES = [PROJECT / "README.md", PROJECT / "data/README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def stats():
    return {mode: json.loads((REPORT / f"{mode}_stats.json").read_text()) for mode in ("single_turn", "multi_turn")}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text, folder = page.read_text(encoding="utf-8"), page.parent
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert not [target for target in targets if target and not (folder / target).exists()]


def test_the_readme_s_numbers_are_the_committed_report_s(stats):
    rows = {
        "requests": lambda s: f"{s['requests']:,}",
        "mean sharing fraction (by request)": lambda s: percent(s["sharing_fraction"]["mean"]),
        "the same without the template's own tokens": lambda s: percent(
            s["without_template_tokens"]["sharing_fraction"]["mean"]
        ),
        "token hit rate (by token)": lambda s: percent(s["token_hit_rate"]),
        "the same with generated tokens cached": lambda s: percent(s["with_generated_tokens"]["token_hit_rate"]),
        "block reuse rate (by block access)": lambda s: percent(s["block_reuse_rate"]),
    }
    for name, show in rows.items():
        assert f"| {name} | {show(stats['single_turn'])} | {show(stats['multi_turn'])} |" in README


def test_the_readme_says_of_origins_and_causes_what_the_report_says():
    report = (PROJECT / "reports/default/report.md").read_text(encoding="utf-8")
    said = re.findall(r"^[23]\. (.*?) \(\[", report, re.MULTILINE)
    assert len(said) == 2 and " ".join(said) in README


def read_table(report, name):
    with open(PROJECT / f"reports/{report}/tables/{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_chat_and_agents_stand_side_by_side_with_the_numbers_of_their_reports():
    columns = []
    for report in ("default", "agentic"):
        stats = json.loads((PROJECT / f"reports/{report}/multi_turn_stats.json").read_text())
        replies = stats["with_generated_tokens"]["token_hit_rate"]
        needs = {row["share of the unbounded rate"]: float(row["GiB, Llama-3.1-8B"])
                 for row in read_table(report, "40-needs")}  # fmt: skip
        own = [float(row["share of prompt tokens"]) for row in read_table(report, "25-origins")
               if not row["blocks"] and row["origin"] == "own earlier turns"]  # fmt: skip
        against = [(row["policy"], float(row["against LRU"])) for row in read_table(report, "50-against-lru")]
        gain = max(points for policy, points in against if policy == "OPT")
        lost = [min(points for policy, points in against if policy == name) for name in LOSING]
        columns.append([
            f"{stats['requests']:,}",
            percent(stats["token_hit_rate"]) + (f" (with replies {percent(replies)})" if replies else ""),
            percent(own[0]),
            *(f"{needs[share]:,.1f} GiB" for share in ("50.0 %", "90.0 %")), f"+{gain:.1f} points",
            ", ".join(f"{points:.1f}" for points in lost).replace("-", "−") + " points",
        ])  # fmt: skip
    table = README[README.index("[agents](reports/agentic/report.md)") :].partition("\n\n")[0].split("\n")[2:]
    assert [row.strip("| ").split(" | ")[1:] for row in table] == [list(row) for row in zip(*columns, strict=True)]
    assert README[: README.index(table[-1])].count("\n") < 30  # on the first screen


def test_the_card_of_the_agent_sessions_is_of_the_committed_report():
    stats = json.loads((PROJECT / "reports/agentic/multi_turn_stats.json").read_text())
    card = CARDS[CARDS.index("## Agent sessions") :].partition("\n## ")[0]
    for number in (stats["requests"], stats["prompt_tokens"]["total"], *stats["blocks"].values()):
        assert f"{number:,}" in card
    assert stats["dataset"]["sha256"] == SOME_SHA256 and SOME_SHA256 in card and SESSIONS.repository in card
    assert f"DATA={stats['parameters']['data']} " in card and stats["dataset"]["conversations"] == len(SOME_IDS)
    text = (PROJECT / "reports/agentic/report.md").read_text(encoding="utf-8")
    assert f"of {len(SOME_IDS)} agent sessions" in text.partition("## Method")[0]


def test_the_readme_s_speeds_are_the_committed_benchmarks():
    bench = (PROJECT / "reports/bench/bench.md").read_text(encoding="utf-8")
    measured = re.findall(r"^\| \S+ \| (.+?) \| (.*?) \| .*?\*\*(.+?)\*\*", bench, re.MULTILINE)
    speeds = README.partition("**Speed.**")[2].partition("\n## ")[0]
    quoted = re.findall(r"^\| (.+?) \| (.*?) \| ([\d.,]+) \|$", speeds, re.MULTILINE)
    assert quoted and set(quoted) <= set(measured)
    shares = {job: ratio for job, _, ratio in measured}
    assert f"takes {shares['main job, all bundled data']} of the CPU time of a single pass" in speeds


def test_the_data_card_s_numbers_are_the_committed_report_s(stats):
    dataset = stats["multi_turn"]["dataset"]
    for number in (
        dataset["records_read"], dataset["conversations"], dataset["bytes"], dataset["exact_duplicates"],
        stats["multi_turn"]["requests"], stats["multi_turn"]["prompt_tokens"]["total"], *dataset["skipped"].values(),
    ):  # fmt: skip
        assert f"{number:,}" in CARDS
    assert dataset["sha256"] in CARDS
    measured = [
        [s["sharing_fraction"]["mean"], s["sharing_fraction"]["median"], s["block_reuse_rate"]] for s in stats.values()
    ]
    cells = [
        " / ".join(f"{100 * value:.1f}" for value in values) + f" / {s['block_hit_count']['mean']:.2f}"
        for values, s in zip(measured, stats.values(), strict=True)
    ]
    assert f"| default run | {cells[0]} | {cells[1]} |" in CARDS


def test_the_worked_record_is_right():
    chat = load_chat(find_tokenizer())
    text = json.loads((PROJECT / "data/sample/conversations.json").read_text())[0]["conversations"][0]["value"]
    prompt = chat.encode(chat.render([[{"role": "user", "content": text}]]))[0]
    assert f"{text}" in CARDS and f"21 + 14 + 3 = {len(prompt)} tokens" in CARDS and len(prompt) == 21 + 14 + 3


def test_the_default_report_was_made_with_the_defaults(stats):
    from kvprefix.traces.parameters import Parameters, settle_arrivals

    made, right = stats["multi_turn"]["parameters"], settle_arrivals(Parameters()).describe_requests()
    assert {name: made[name] for name in right} == right


def test_what_is_made_of_the_code_is_as_make_docs_writes_it(capfd):
    spec = spec_from_file_location("make_docs", LIB / "make_docs.py")
    make_docs = module_from_spec(spec)
    spec.loader.exec_module(make_docs)
    assert make_docs.main(["--check"]) == 0, capfd.readouterr().err


def test_every_key_of_the_output_files_is_in_the_reference(shared_derived, tmp_path):
    from kvprefix.studies.sharing import analyse, write_results
    from kvprefix.traces.parameters import Parameters
    from kvprefix.traces.workload import load_workload

    workload = load_workload(Parameters(data=str(SAMPLE)), progress=False)
    write_results(analyse(workload), workload, tmp_path)
    stats = json.loads((tmp_path / "multi_turn_stats.json").read_text())
    page = (DOCS / "reference/files.md").read_text(encoding="utf-8")
    summary = {"mean", "std", "min", "p5", "p25", "median", "p75", "p95", "p99", "max"}
    assert all(f"`{name}`" in page for name in summary)
    known = {"parameters", "versions", "skipped", "repaired", "first_skipped", "first_repaired", "intervals"}

    def check(content, where=""):
        for name, value in content.items():
            path = f"{where}{name}"
            named = f"`{path}`" in page or f"`{path}." in page or f"`{name}`" in page or f"`{where[:-1]}`" in page
            assert named, path
            if isinstance(value, dict) and name not in known and not summary <= value.keys():
                check(value, f"{path}.")

    check(stats)
    for file in ("multi_turn_request_metrics.csv", "multi_turn_block_metrics.csv"):
        for name in (tmp_path / file).read_text().partition("\n")[0].split(","):
            assert f"`{name}`" in page
    with (tmp_path / "multi_turn_trace.jsonl").open() as lines:
        assert all(f"`{name}`" in page for name in json.loads(next(lines)))


def test_the_default_report_s_parameters_are_the_defaults():
    from kvprefix.traces.parameters import Parameters, settle_arrivals

    assert json.loads((REPORT / "parameters.json").read_text()) == settle_arrivals(Parameters()).as_dict()
