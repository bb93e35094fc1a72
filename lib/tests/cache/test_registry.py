"""One entry is all that a policy needs: it is in the command, the study, the figure, the tables and the definitions."""

import json

import numpy as np
import pytest
from cache_twin import make_random, replay_twin
from matplotlib.colors import to_hex
from said import said_of
from trace_lines import line, write

from kvprefix.__main__ import main
from kvprefix.cache import tree
from kvprefix.cache.policies import POLICIES, add_policy, label_policy, policy
from kvprefix.cache.policy import Look, Policy, Setting
from kvprefix.cache.replay import replay
from kvprefix.cache.rules.slru import Slru
from kvprefix.files.paths import InputError
from kvprefix.models.memory import load_model
from kvprefix.report.facts import cache as facts_cache
from kvprefix.report.plots import cache as plot_cache
from kvprefix.studies import draws
from kvprefix.studies.cache import study_policies
from kvprefix.studies.sweep import sweep

LABEL = "Dummy $ of * 2"  # holds what Matplotlib and Markdown would read


@pytest.fixture
def dummy(monkeypatch):
    """Add an entry, forgotten after the test: SLRU under another name, with a look and a setting of its own."""
    before = dict(POLICIES)
    yield add_policy(
        Policy(
            name="dummy", label=LABEL, definition="Does as SLRU does.", make_rule=Slru.make, queues=2,
            setting=Setting(default=0.5, most=2.0, meaning="share that is protected"),
            look=Look(color="#123456", linestyle="-", marker="h", rank=-1),
        )
    )  # fmt: skip
    POLICIES.clear()
    POLICIES.update(before)


def test_the_command_knows_a_new_entry(dummy, tmp_path, capsys):
    path = write(tmp_path / "chat.jsonl", line([1, 2], 8, 10), line([3], 4, 20), line([1, 2, 4], 10, 30))
    assert main(["curve", str(path), "--block-size", "4", "--capacities", "2", "--policy", "dummy,lru"]) == 0
    assert [row.split("|")[1].strip() for row in capsys.readouterr().out.split("\n")[-3:-1]] == [LABEL, "LRU"]
    code = main(["curve", str(path), "--block-size", "4", "--policy", "dummy", "--format", "json"])
    assert code == 0 and {row["policy"] for row in json.loads(capsys.readouterr().out)["curves"]} == {"dummy"}
    assert main(["curve", str(path), "--policy", "mru"]) == 2
    assert f"known: {', '.join(POLICIES)}; did you mean lru?\n" in capsys.readouterr().err and "dummy" in POLICIES
    with pytest.raises(SystemExit):
        main(["curve", "--help"])
    assert " ".join(capsys.readouterr().out.split()).count(f"(default: lru,opt); known: {', '.join(POLICIES)} --") == 1


def test_the_study_the_figure_and_the_tables_have_a_new_entry(dummy, bundled_workload, derived, monkeypatch):
    monkeypatch.setattr(draws.list_rounds, "__defaults__", (2,))
    own = policy("own", "Own & new")(lambda block: block.stored)
    frame = study_policies(bundled_workload, [50])
    assert list(frame["policy"].unique()) == list(POLICIES) and {"dummy", "own"} < set(POLICIES)
    token = frame.set_index(["policy", "seed"])["token"]
    assert token["own"].tolist() == token["fifo"].tolist() and token["dummy"].tolist() != token["slru"].tolist()

    figure, _ = plot_cache.draw_policies(frame, {"token": 0.6}, 16, load_model("Llama-3.1-8B"))
    lines = {one.get_label(): one for one in figure.axes[0].lines}
    assert list(lines)[0] == LABEL.replace("$", r"\$") and set(lines) >= {"Own & new", "LRU", "OPT"}
    first = next(iter(lines.values()))
    assert (to_hex(first.get_color()), first.get_marker()) == ("#123456", "h")
    looks = {(to_hex(one.get_color()), str(one._dash_pattern), one.get_marker()) for one in lines.values()}
    assert len(looks) == len(lines) == len(POLICIES) + 1

    shown = facts_cache.tabulate_policies(frame, {"token": 0.6})
    assert shown["policy"].tolist() == [one.label for one in POLICIES.values()]
    said = said_of(facts_cache.facts_policies, shown)
    assert r"Dummy \$ of \* 2" in said or r"Dummy \$ of * 2" in said
    assert facts_cache.facts_policies(shown)["tried"] == len(POLICIES) - 2
    listed = facts_cache.list_policies().set_index("policy")
    assert listed.loc[LABEL].tolist() == [0.5, "Does as SLRU does."] and "Own & new" in listed.index
    # the user's function is part of what a kept table is of: another one is measured anew
    policy("own", "Own & new")(lambda block: -block.now)
    again = study_policies(bundled_workload, [50], ["lru", POLICIES["own"]])
    assert again["policy"].tolist() == ["lru", "own"] * 2
    assert again[again["policy"] == "own"]["token"].tolist() != token["own"].tolist() and own is not POLICIES["own"]


def test_a_sweep_takes_policies_and_names(dummy):
    accesses = make_random(seed=0, n_requests=100).accesses
    rows = sweep(accesses, ["lru", dummy], [5, 9])
    assert [(row["policy"], row["capacity_blocks"]) for row in rows] == [
        ("lru", 5), ("lru", 9), ("dummy", 5), ("dummy", 9),
    ]  # fmt: skip


def test_a_new_entrys_setting_is_checked_by_what_it_says(dummy):
    small = make_random(seed=0, n_requests=100)
    assert replay(small.accesses, 9, dummy).tolist() == replay_twin(small, 9, "slru", setting=0.5)
    with pytest.raises(InputError, match=r"policy dummy: its setting is 3; expected .* 0 and 2 \(share that is"):
        replay(small.accesses, 9, "dummy", setting=3)


def test_the_study_needs_what_it_compares_with(bundled_workload):
    with pytest.raises(InputError, match="expected lru among them"):
        study_policies(bundled_workload, [50], ["lfu"])


def test_a_policy_that_is_not_known_here_is_shown_by_its_name():
    assert label_policy("from-elsewhere") == "from-elsewhere" and label_policy("slru") == "SLRU"


def test_compiled_code_of_a_rule_that_is_no_more_is_forgotten(tmp_path, monkeypatch):
    (tmp_path / "tree.replay_tree-1.py311.nbi").write_bytes(b"of a rule that cannot be imported")
    calls = []

    class Stale:
        class stats:
            cache_path = str(tmp_path)

        def __call__(self, rule, hits):
            calls.append(list(tmp_path.iterdir()))
            if calls[-1]:
                raise AttributeError("Can't get attribute 'Mru'")

    monkeypatch.setattr(tree, "replay_tree", Stale())
    tree.run_rule(None, np.zeros(0, np.int64))
    assert [len(files) for files in calls] == [1, 0]
