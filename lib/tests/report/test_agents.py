"""The report on agent sessions: its facts, tables and figures, and the notebook on sessions and on chats."""

import shutil

import pytest
from found import FACTS
from places import PROJECT, SAMPLE
from said import missing
from seen import find_faults
from session_files import make_sessions
from trace_lines import line

from kvprefix.cache.curve import rate_unbounded
from kvprefix.report.captions import state_sessions
from kvprefix.report.facts import agents as facts
from kvprefix.report.facts import narrow
from kvprefix.report.facts.answer import facts_answer
from kvprefix.report.facts.cache import tabulate_policies
from kvprefix.report.notebooks import execute_notebooks
from kvprefix.report.paper.tabular import fit_table
from kvprefix.report.paper.widths import COLUMN_PT
from kvprefix.report.plots import agents as plot
from kvprefix.report.section_files import read_facts, read_sections
from kvprefix.report.tables import NARROW, show_cells
from kvprefix.report.words import say
from kvprefix.studies import agents as study
from kvprefix.studies.cache import study_policies
from kvprefix.studies.experiment import fit_parameters, load_experiment
from kvprefix.traces.parameters import Parameters


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return load_experiment(Parameters(data=str(make_sessions(tmp_path_factory.mktemp("sessions") / "s.jsonl"))))


@pytest.fixture(scope="module")
def paused(experiment):
    return study.study_pauses(experiment)


def test_what_is_said_of_sessions_is_what_was_counted(experiment):
    sessions = experiment.sessions
    rows, growth = study.describe_sessions(sessions), study.tabulate_growth(sessions)
    found = facts.facts_sessions(rows, growth)
    text = say("agent_sessions.md", found)
    rate = rate_unbounded(experiment.draw(64))["token"]
    assert found["rate"] == pytest.approx(rate)
    assert not missing(text, f"9 sessions have {len(sessions):,} requests", f"{100 * rate:.1f} % of all prompt tokens")
    assert "sub-agent" not in text
    table = facts.tabulate_sessions(rows)
    assert table["total"].tolist()[0] == len(sessions) and table["most"].tolist()[4] == found["largest_prompt"]
    gaps = study.tabulate_gaps(sessions)
    said = say("agent_gaps.md", facts.facts_gaps(gaps))
    assert "A tool's result follows" in said and "A person takes" in said and "does not tell what they follow" in said


def test_what_is_said_of_pauses_and_of_breaks(experiment, paused):
    found = facts.facts_pauses(paused, 64)
    at = paused[(paused["capacity_blocks"] == found["blocks"]) & (paused["pause"] == 0)]["token"].mean()
    assert f"{100 * at:.1f} % of its prompt after a pause of under 10 s" in say("agent_pauses.md", found)
    broken = study.tabulate_compactions(experiment.sessions)
    assert len(broken) and (broken["after"] < broken["before"]).all()
    text = say("agent_compactions.md", facts.facts_compactions(broken, len(experiment.sessions)))
    assert f"{len(broken)} prompts of {len(experiment.sessions)} in" in text
    assert "continues the one before" in say("agent_compactions.md", facts.facts_compactions(broken[:0], 3))
    assert "no pause to measure" in say("agent_pauses.md", facts.facts_pauses(paused[:0], 64))


@pytest.fixture(scope="module")
def policies(experiment):
    return tabulate_policies(study_policies(experiment, [20, 60]), rate_unbounded(experiment.draw(64)))


def test_policies_are_compared_where_they_lie_farthest_apart(policies):
    found = facts.facts_agent_policies(policies)
    rates = policies[policies["policy"] != "OPT"].groupby("blocks")["token hit rate"]
    apart = (rates.max() - rates.min()).to_dict()
    assert found["blocks"] == max(apart, key=apart.get) and found["apart"] == pytest.approx(100 * max(apart.values()))
    at = policies[policies["blocks"] == found["blocks"]].set_index("policy")
    named = {one["policy"]: one for one in found["others"]}
    assert set(named) | set(found["alike"]) | {"LRU", "OPT"} == set(at.index)
    for label, one in {**named, "LRU": found["lru"], "OPT": found["opt"]}.items():
        row = at.loc[label]
        assert [one["rate"], *one["rate_interval"]] == row[["token hit rate", "95 % low", "95 % high"]].tolist()
        assert [one["points"], *one["points_interval"]] == row[["against LRU", "low", "high"]].tolist()
    assert {at["verdict"][label] for label in named} <= {"better", "worse"}
    text = say("agent_policies.md", found)
    assert not missing(text, f"by {found['apart']:.1f} points ~ LRU hits {100 * found['lru']['rate']:.1f} %")
    level = policies.assign(**{"token hit rate": 0.5, "against LRU": 0.0, "low": 0.0, "high": 0.0, "verdict": "equal"})
    assert "All policies hit equally much" in say("agent_policies.md", facts.facts_agent_policies(level))


def test_what_is_missed_is_all_that_is_not_hit(experiment):
    sessions = experiment.sessions
    found = facts.facts_misses(study.tabulate_misses(sessions))
    rows = study.describe_sessions(sessions)
    assert found["missed"] == rows["prompt_tokens"].sum() - rows["hit_tokens"].sum()
    assert sum(one["share"] for one in found["kinds"].values()) == pytest.approx(1)
    assert "sub-agents" not in say("agent_misses.md", found)
    assert "nothing is missed" in say("agent_misses.md", found | {"missed": 0})


def test_page_one_says_what_agents_share(experiment, paused, policies):
    sessions = experiment.sessions
    rows = study.describe_sessions(sessions)
    found = {"15-agents": {
        "agent_sessions": facts.facts_sessions(rows, study.tabulate_growth(sessions)),
        "agent_misses": facts.facts_misses(study.tabulate_misses(sessions)),
        "agent_pauses": facts.facts_pauses(paused, 64), "agent_policies": facts.facts_agent_policies(policies),
    }, "40-cache-size": FACTS["40-cache-size"], "50-eviction": FACTS["50-eviction"]}  # fmt: skip
    chosen = facts_answer(found, Parameters())["findings"]
    said = {name: say(f"answer_{name}.md", one) for name, one in chosen.items() if one is not None}
    names = ["agents", "misses", "curve", "agent_policies", "pauses", "hinted"]
    assert list(said) == names  # not `policy`, which says the same as `agent_policies`
    shared = found["15-agents"]["agent_sessions"]
    low, high = shared["rate_interval"]
    assert low < shared["rate"] < high
    said_rates = f"{100 * shared['rate']:.1f} %", f"{100 * low:.1f} % ~ {100 * high:.1f} %"
    assert not missing(said["agents"], "9 agent sessions", *said_rates)
    assert not missing(said["curve"], "half ~ 62.2 % ~ 22,690 blocks ~ 44.3 GiB", "90 % ~ 127,033 ~ 248.1 GiB")
    assert "the optimum" in said["agent_policies"] and "of its prompt after a pause of under 10 s" in said["pauses"]
    assert said["misses"].count("%") == 3
    assert not any(facts_answer({"15-agents": {}}, Parameters())["findings"].values())


@pytest.mark.parametrize("width", [plot.COLUMN_IN, plot.PAGE_IN])
def test_figures_can_be_read(experiment, paused, policies, width):
    sessions = experiment.sessions
    capacities = study.choose_capacities(sessions.accesses.n_distinct)
    for draw, arguments in {
        plot.draw_sessions: (study.tabulate_growth(sessions), study.list_pauses(sessions)),
        plot.draw_session_rates: (study.rate_sessions_at(experiment, capacities),), plot.draw_pauses: (paused,),
        plot.draw_widest: (facts.select_widest(policies),),
    }.items():  # fmt: skip
        assert not find_faults(draw(*arguments, width_in=width)[0])


def test_tables_fit_a_column(experiment, paused, policies):
    rows = study.describe_sessions(experiment.sessions)
    for one in (narrow.narrow_sessions(facts.tabulate_sessions(rows)),
                narrow.narrow_pauses(facts.tabulate_pauses(paused, 64)),
                narrow.narrow_widest(facts.select_widest(policies))):  # fmt: skip
        shown = show_cells(one.frame, one.formats)
        assert len(shown["head"]) <= NARROW
        assert fit_table(shown["head"], shown["rows"], shown["numeric"], COLUMN_PT).fits
    assert "9 sessions; block size 64 tokens; sessions start by a Poisson" in state_sessions(experiment, paused)
    assert "Poisson" not in state_sessions(experiment)


def test_a_notebook_is_left_out_in_one_line_if_the_data_are_of_another_kind(tmp_path):
    for name in ("15-agents.ipynb", "30-block-size.ipynb"):
        shutil.copy(PROJECT / "notebooks" / name, tmp_path / name)
    data = make_sessions(tmp_path / "s.jsonl", 3)
    sources = [tmp_path / "30-block-size.ipynb", tmp_path / "15-agents.ipynb"]
    for given, out, left_out in ((data, "blocks", "30-block-size"), (SAMPLE, "chats", "15-agents")):
        parameters = Parameters(data=str(given))
        chosen = sources if given is data else sources[1:]
        assert execute_notebooks(chosen, parameters, tmp_path / out) == 0
        sections = read_sections(tmp_path / out)
        if given is data:  # a report of chats says nothing of what is not for chats
            (item,) = sections[left_out]["items"]
            assert item["kind"] == "absent" and "left out" in item["text"]
        else:
            assert left_out not in sections
        assert (tmp_path / out / "notebooks" / f"{left_out}.ipynb").exists()
        assert execute_notebooks(chosen, parameters, tmp_path / out, only_stale=True) == 0
    assert "agent_pauses" in read_facts(tmp_path / "blocks", Parameters(data=str(data)))["15-agents"]


def test_a_trace_without_sessions_is_not_said_to_be_of_agents(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [(list(range(k % 7, k % 7 + 3)), 512 * 2 + 40 * k + 1, 1000 * k) for k in range(12)]
    path.write_text("\n".join(line(*row) for row in rows))
    names = "15-agents", "20-prefix-sharing", "90-report"
    parameters = fit_parameters(Parameters(data=str(path)))
    sources = [PROJECT / "notebooks" / f"{name}.ipynb" for name in names]
    assert execute_notebooks(sources, parameters, tmp_path / "out", jobs=2) == 0
    text = (tmp_path / "out/report.md").read_text()
    assert "of the prompt tokens of 12 requests repeat earlier requests" in text
    assert "names no sessions: each of 12 requests stands alone" in text and "resampled requests" in text
    body = text.partition("## Analysis and conclusion")[0]
    assert "agent" not in body.lower().replace("15-agents", "")
    assert "session" not in body.replace("15-session", "").replace("no sessions", "")
    assert "no request of the trace follows another" in text.partition("## Not in this report")[2]
