"""What the study of policies with hints found, number by number, on a small table whose values are all different."""

import json

import numpy as np
import pandas as pd
import pytest
from places import CARRIED, PROJECT
from said import missing, said_of
from strange_data import run_notebook

from kvprefix.cache.policies import label_policy
from kvprefix.report import sections
from kvprefix.report.facts import hinted as facts_hinted
from kvprefix.report.facts import narrow
from kvprefix.report.facts.answer import choose_hinted
from kvprefix.report.plots.hinted import draw_hinted
from kvprefix.report.tables import show_cells
from kvprefix.report.words import say

TOKENS = {  # capacity -> policy -> two seeds
    100: {"lru": (0.10, 0.12), "ttl": (0.10, 0.12), "session": (0.13, 0.16), "tool": (0.14, 0.15), "opt": (0.30, 0.32)},
    900: {"lru": (0.40, 0.42), "ttl": (0.36, 0.40), "session": (0.42, 0.41), "tool": (0.41, 0.43), "opt": (0.44, 0.46)},
}


def frame(tokens=TOKENS):
    rows = []
    for capacity, policies in tokens.items():
        for name, two in policies.items():
            for seed, token in enumerate(two):
                gain, gap = token - policies["lru"][seed], policies["opt"][seed] - policies["lru"][seed]
                ends = (token - 0.03, token + 0.05, gain - 0.005, gain + 0.005) if seed == 0 else [np.nan] * 4
                rows.append((seed, name, capacity, token, *ends, gain / gap if gap else np.nan))
    columns = ["seed", "policy", "capacity_blocks", "token", "low", "high", "gain_low", "gain_high", "closed"]
    return pd.DataFrame(rows, columns=columns)


FLAT = {8: dict.fromkeys(["lru", "ttl", "opt"], (0.2, 0.2))}
TABLE = facts_hinted.tabulate_hinted(frame())


def test_the_table_has_each_policy_s_share_of_what_the_optimum_gains():
    # Tool calls gains 4 and 3 points with 100 blocks, 1 and 1 with 900; the optimum 20 and 20, 4 and 4.
    rows = TABLE.set_index(["blocks", "policy"])
    assert rows[facts_hinted.CLOSED].to_numpy() == pytest.approx([0, 0, 0.175, 0.175, 1, 0, -0.75, 0.125, 0.25, 1])
    assert rows["against LRU"].to_numpy() == pytest.approx([0, 0, 3.5, 3.5, 20, 0, -3, 0.5, 1, 4])
    assert rows["verdict"].tolist() == [
        "–", "equal", "better", "better", "bound", "–", "worse", "not separated", "better", "bound",
    ]  # fmt: skip
    assert list(rows.index.get_level_values(1))[:5] == ["LRU", "TTL", "Sessions", "Tool calls", "OPT"]


def test_what_is_said():
    text = said_of(facts_hinted.facts_hinted, TABLE)
    assert not missing(
        text, "Tool calls closes the largest share ~ 25.0 % ~ 900 ~ blocks ~ LRU hits ~ 41.0 % ~ Tool calls ~ 42.0 %",
        "+1.00 ~ points, ~ 95 % ~ +0.50 ~ +1.50 ~ optimum ~ 45.0 %", "Worse than LRU ~ 2 ~ capacities): TTL ( ~ 1 ~ ).",
        "Sessions is better than LRU too at ~ 1 ~ capacity ~ 17.5 % ~ 100 ~ blocks", "Pinned prompts (no whole block",
        "Priority (no request has a priority",
    )  # fmt: skip
    assert "Tool calls (" not in text and "Sessions (" not in text


def test_what_is_said_where_none_is_better_or_nothing_can_be_won():
    worse = {name: (0.4, 0.4) if name == "tool" else two for name, two in TOKENS[900].items()}
    text = said_of(facts_hinted.facts_hinted, facts_hinted.tabulate_hinted(frame({900: worse})))
    assert not missing(text, "No policy with hints is better ~ Sessions ~ 12.5 % ~ 900 ~ blocks ~ +0.50 ~ points")
    worse["session"] = worse["lru"]
    text = said_of(facts_hinted.facts_hinted, facts_hinted.tabulate_hinted(frame({900: worse})))
    assert not missing(text, "zero. Worse than LRU (and at how many of ~ 1 ~ capacity): TTL") and "0.0" not in text
    table = facts_hinted.tabulate_hinted(frame(FLAT))
    assert table[facts_hinted.CLOSED].isna().all()
    text = said_of(facts_hinted.facts_hinted, table)
    assert not missing(text, "With ~ 1 ~ capacity tried, the optimum hits no more", "Sessions (no conversation")
    assert choose_hinted({"50-eviction": {"hinted": facts_hinted.facts_hinted(table)}}) is None


def test_page_one_names_the_best_policy_if_one_is_better():
    facts = facts_hinted.facts_hinted(TABLE)
    one = choose_hinted({"50-eviction": {"hinted": facts}})
    assert not missing(say("answer_hinted.md", one), "3 policies ~ Tool calls ~ 25.0 % ~ 900 ~ blocks")
    facts["most"]["verdict"] = "not separated"
    assert choose_hinted({"50-eviction": {"hinted": facts}}) is None


def test_the_narrow_table_has_rates_of_the_bounds_and_shares_of_the_rest():
    made = narrow.narrow_hinted(TABLE)
    assert show_cells(made.frame, made.formats)["rows"] == [
        ["LRU", "11.0", "41.0"], ["OPT", "31.0", "45.0"], ["TTL", "0.0", "↓ −75.0"], ["Sessions", "↑ 17.5", "12.5"],
        ["Tool calls", "↑ 17.5", "↑ 25.0"],
    ]  # fmt: skip
    assert made.notes[0].startswith("Percent; of LRU and OPT the token hit rate, of others the share of the gap")
    flat = narrow.narrow_hinted(facts_hinted.tabulate_hinted(frame(FLAT)))
    assert show_cells(flat.frame, flat.formats)["rows"][2] == ["TTL", "–"]


def test_a_bar_is_a_share_and_what_leaves_the_axes_is_marked():
    (axes,) = draw_hinted(frame())[0].axes
    bars = [[bar.get_height() for bar in group] for group in axes.containers if hasattr(group, "patches")]
    assert bars == pytest.approx(np.array([[0, -0.25], [0.175, 0.125], [0.175, 0.25]]))  # -0.75 ends at -0.25
    assert {text.get_text() for text in axes.texts} == {"0.0", "−75.0", "17.5", "12.5", "25.0"}
    marks = [line.get_xydata() for line in axes.lines if line.get_marker() == "v" and len(line.get_xdata())]
    assert len(marks) == 1 and len(marks[0]) == 1
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100\n11.0 %\n31.0 %", "900\n41.0 %\n45.0 %"]
    assert "no more than LRU" in draw_hinted(frame(FLAT))[0].axes[0].texts[-1].get_text().replace("\n", " ")


def test_in_the_notebook_the_optimum_bounds_every_policy_on_agents_sessions(derived, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "save_drawing", lambda *_: None)
    data, told = CARRIED / "agentic_sessions.jsonl.gz", ["ttl", "session", "tool"]
    parameters = {"data": str(data), "block_size": 64, "output_dir": str(tmp_path)}
    run_notebook(PROJECT / "notebooks/50-eviction.ipynb", parameters)
    table = pd.read_csv(tmp_path / "figures/50-hinted.csv")
    assert list(table["policy"].unique()) == ["lru", *told, "opt"]
    hits = table.pivot(index=["seed", "capacity_blocks"], columns="policy", values="block")
    assert (hits.le(hits["opt"], axis=0)).all(axis=None) and table["capacity_blocks"].nunique() > 3
    assert not (table["closed"] > 1).any() and (table.loc[table["policy"] == "lru", "closed"].fillna(0) == 0).all()
    facts = json.loads((tmp_path / "facts/50-eviction.json").read_text())["facts"]["hinted"]
    assert [one["policy"] for one in facts["policies"]] == [label_policy(name) for name in told]
    section = json.loads((tmp_path / "sections/50-eviction.json").read_text())
    assert not [one for one in section["items"] if one["kind"] == "absent"]
