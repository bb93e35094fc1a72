"""The cache study's tables on a small workload: what they hold, that they agree with each other, that they are kept."""

import numpy as np
import pandas as pd
import pytest
from said import said_of

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import lru_curve, measure_distances, rate_hits, rate_unbounded
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import replay
from kvprefix.cache.working_set import count_working_set, rank_reuse
from kvprefix.models.memory import load_model
from kvprefix.report.captions import state_study
from kvprefix.report.facts import cache as facts_cache
from kvprefix.report.plots import block_sizes as plot_sizes
from kvprefix.report.plots import cache as plot_cache
from kvprefix.report.words import say
from kvprefix.stats.intervals import bootstrap_rates, interval, move_interval
from kvprefix.studies import cache as study
from kvprefix.studies import table as studytasks
from kvprefix.studies.draws import FIRST_DRAWS, SEEDS
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


@pytest.fixture(scope="module")
def workload(bundled_workload):
    return bundled_workload


def test_draws_of_the_clock_hold_the_same_requests_in_another_order(workload):
    drawn = list(study.draw_accesses(workload, 16, seeds=3))
    assert [seed for seed, _ in drawn] == [0, 1, 2]
    first = drawn[0][1]
    for _, other in drawn[1:]:
        assert not np.array_equal(other.arrival_s, first.arrival_s) and (np.diff(other.arrival_s) >= 0).all()
        assert other.n_distinct == first.n_distinct and sorted(other.prompt_tokens) == sorted(first.prompt_tokens)
        assert rate_unbounded(other)["block"] == rate_unbounded(first)["block"]


def test_another_seed_s_accesses_are_those_of_its_own_trace(workload):
    from dataclasses import replace

    (_, _), (seed, drawn) = study.draw_accesses(workload, 16, seeds=2)
    own = make_prefix_trace(
        make_trace(replace(workload, parameters=replace(workload.parameters, seed=seed)), "multi_turn"), 16
    )
    times = ("arrival_s", "finish_s")
    for name in ("ids", "offsets", "parent", "depth", "last_weight", "prompt_tokens", "conversation", *times):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(own, name))


def test_lru_study_agrees_with_replays_and_is_kept(workload, monkeypatch):
    frame = study.study_lru(workload, points=5)
    assert set(frame["seed"]) == set(range(FIRST_DRAWS))
    _, accesses = next(study.draw_accesses(workload, 16, seeds=1))
    for row in frame[frame["seed"] == 0].itertuples():
        rates = rate_hits(accesses, replay(accesses, row.capacity_blocks))
        assert rates["token"] == pytest.approx(row.token) and row.low <= row.token <= row.high
    monkeypatch.setattr(studytasks, "open_tasks", None)  # a second call computes nothing
    pd.testing.assert_frame_equal(study.study_lru(workload, points=5), frame)


@pytest.mark.parametrize("damage", [lambda text: text[:100], lambda text: text.replace("0.95", "0.96", 1)])
def test_a_cut_or_altered_table_is_made_again_and_that_is_said(workload, damage, capsys):
    frame = study.study_needs(workload)
    path = studytasks._find_path(workload, "needs", [[0.5, 0.9, 0.95, 0.99]], {}, [])
    path.write_text(damage(path.read_text()))
    assert "making it again" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(study.study_needs(workload), frame)
    assert f"/{path.name}: this cached file was cut or altered; making it again" in capsys.readouterr().out


def test_a_study_that_was_killed_goes_on_with_the_tasks_that_are_left(workload, monkeypatch, tmp_path):
    undisturbed, measure, done = study.study_needs(workload, (0.7,)), study.measure_needs, []

    def fail_at_the_fourth(workload, seed, shares):
        if len(done) == 3:
            raise RuntimeError("killed")
        done.append(seed)
        return measure(workload, seed, shares)

    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path))
    monkeypatch.setenv("KVPREFIX_SCHEDULER", "here")
    monkeypatch.setattr(study, "measure_needs", fail_at_the_fourth)
    with pytest.raises(RuntimeError, match="killed"):
        study.study_needs(workload, (0.7,))
    assert len(list(tmp_path.glob("study-needs-*/*.json"))) == 3
    monkeypatch.setattr(study, "measure_needs", lambda *task: done.append(task[1]) or measure(*task))
    pd.testing.assert_frame_equal(study.study_needs(workload, (0.7,)), undisturbed)
    assert done == undisturbed["seed"].tolist() and [path.suffix for path in tmp_path.glob("study*")] == [".json"]


def test_policies_are_paired_and_opt_is_the_bound(workload):
    frame = study.study_policies(workload, [50, 500])
    assert len(frame) == frame["seed"].nunique() * 2 * len(POLICIES) and FIRST_DRAWS <= frame["seed"].nunique() <= SEEDS
    for _, one in frame.groupby(["seed", "capacity_blocks"]):
        rates = one.set_index("policy")["block"]
        assert (rates <= rates["opt"] + 1e-12).all()
    table = facts_cache.tabulate_policies(frame, {"token": 0.5})
    assert set(table[table["policy"] == "OPT"]["verdict"]) == {"bound"}
    assert "points can be gained" in said_of(facts_cache.facts_policies, table)
    figure, _ = plot_cache.draw_policies(frame, {"token": 0.5}, 16, load_model("Llama-3.1-8B"))
    assert len(figure.axes[0].lines) == len(POLICIES) + 1


def test_cheap_policies_are_replayed_between_the_others_capacities(workload):
    fine = study.study_fine(workload, [50, 777, 5000], points=5)
    assert set(fine["policy"]) == {"lru", "fifo_flat", "ttl", "opt"} and set(fine["seed"]) == {0, 1, 2}
    assert sorted(set(fine["capacity_blocks"])) == [50, 158, 500, 777, 1581, 5000]
    accesses = dict(study.draw_accesses(workload, 16, seeds=3))[2]
    row = fine[(fine["seed"] == 2) & (fine["policy"] == "opt") & (fine["capacity_blocks"] == 158)].iloc[0]
    assert rate_hits(accesses, replay(accesses, 158, "opt")) == row[["block", "token", "request_mean"]].to_dict()
    replays = study.study_policies(workload, [50, 777, 5000])
    figure, data = plot_cache.draw_policies(replays, {"token": 0.5}, 16, load_model("Llama-3.1-8B"), fine)
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert lines["OPT"].get_xdata().tolist() == [50, 158, 500, 777, 1581, 5000]
    assert lines["OPT"].get_markevery() == [0, 3, 5] and lines["LFU"].get_xdata().tolist() == [50, 777, 5000]
    mean = replays[replays["policy"].isin(["lfu", "lru"])].groupby(["capacity_blocks", "policy"])["token"].mean()
    gains = {line.get_label(): line.get_ydata() for line in right.lines}
    assert gains["LFU"] == pytest.approx(100 * (mean[:, "lfu"] - mean[:, "lru"]).to_numpy()) and "OPT" not in gains
    assert not data.duplicated(["seed", "policy", "capacity_blocks"]).any()
    assert len(data) == len(replays) + 3 * 4 * 3  # three seeds of four policies at three more capacities


def test_block_sizes_lose_about_half_a_block(workload):
    frame = study.study_block_sizes(workload, [2_000, 20_000], sizes=(1, 4, 16))
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    assert whole["lost_tokens"][1] == 0
    assert whole["lost_tokens"][4] == pytest.approx(1.5, abs=0.3)
    assert whole["blocks"][1] > 3.9 * whole["blocks"][4]
    bounded = frame[(frame["memory_tokens"] == 2_000) & (frame["block_size"] == 4) & (frame["seed"] == 0)]
    accesses = make_prefix_trace(make_trace(workload, "multi_turn"), 4)
    assert bounded["token"].item() == pytest.approx(rate_hits(accesses, replay(accesses, 500))["token"])


def test_block_sizes_with_too_many_accesses_are_left_out_and_named(workload, monkeypatch):
    prompts = workload.requests["prompt_tokens"]
    accesses = {size: sum(length // size for length in prompts) for size in (1, 2, 4)}
    assert study.fit_sizes(workload) == list(study.BLOCK_SIZES)
    assert facts_cache.facts_left_out(workload) == {"left_out": [], "budget": study.ACCESS_BUDGET}
    for module in (study, facts_cache):
        monkeypatch.setattr(module, "ACCESS_BUDGET", accesses[4])
    assert study.fit_sizes(workload) == [4, 8, 16, 32, 64, 128, 256, 512]
    assert study.count_threads(workload, 4) == 1
    frame = study.study_block_sizes(workload, [2_000], sizes=(1, 2, 4, 16))
    assert sorted(set(frame["block_size"])) == [4, 16]
    assert facts_cache.name_smallest(frame) == "4 tokens"
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    assert whole["lost_tokens"][4] == 0 and whole["lost_tokens"][16] > 0
    left_out = facts_cache.facts_left_out(workload)
    sizes = [{"size": 1, "accesses": accesses[1]}, {"size": 2, "accesses": accesses[2]}]
    assert left_out == {"left_out": sizes, "budget": accesses[4]}
    said = say("block_sizes.md", facts_cache.facts_block_sizes(frame) | left_out)
    assert f"1: {accesses[1]:,}; 2: {accesses[2]:,}." in said and f"more than {accesses[4]:,} block accesses" in said
    # half a block of 16 against blocks of 4: (16 - 4) / 2 = 6
    assert facts_cache.tabulate_block_sizes(frame)["half a block"].tolist() == [0, 6]
    _, data = plot_sizes.draw_loss(frame)
    assert data["half_a_block"].tolist() == [6]


def test_a_verdict_needs_an_interval_without_zero_and_every_seed():
    def frame(gains, low, high):
        rows = []
        for seed, gain in enumerate(gains):
            ends = (low, high) if seed == 0 else (np.nan, np.nan)
            for policy, token in (("lru", 0.5), ("lfu", 0.5 + gain)):
                rows.append((seed, policy, 10, token, 0.4 if seed == 0 else np.nan, 0.6, *ends))
        columns = ["seed", "policy", "capacity_blocks", "token", "low", "high", "gain_low", "gain_high"]
        return facts_cache.tabulate_policies(pd.DataFrame(rows, columns=columns), {"token": 0.5})

    better = frame([0.1, 0.2], 0.05, 0.2).loc[1]
    assert better["verdict"] == "better"
    # of the first seed, whose gain is 10 points; the mean is 15
    assert better[["low", "against LRU", "high"]].tolist() == pytest.approx([10, 15, 25])
    assert frame([-0.1, -0.2], -0.2, -0.05)["verdict"][1] == "worse"
    assert frame([0.1, 0.2], -0.06, 0.2)["verdict"][1] == "not separated"
    assert frame([0.1, -0.2], 0.05, 0.2)["verdict"][1] == "not separated"
    assert frame([0.0, 0.0], 0.0, 0.0)["verdict"][1] == "equal"


def test_resampling_conversations_is_wider_than_resampling_requests():
    # 50 conversations of 20 equal requests: the effective sample is 50, so the interval is sqrt(20) times as wide.
    rng = np.random.default_rng(0)
    hit = np.repeat(rng.integers(0, 2, 50), 20)[:, None] * 10
    prompt, conversation = np.full(1000, 10), np.repeat(np.arange(50), 20)
    wide = np.diff(interval(bootstrap_rates(hit, prompt, conversation)[:, 0]))[0]
    naive = np.diff(interval(bootstrap_rates(hit, prompt, np.arange(1000))[:, 0]))[0]
    assert wide / naive == pytest.approx(np.sqrt(20), rel=0.15)


def test_working_set_counts_distinct_blocks_in_the_window():
    rng = np.random.default_rng(1)
    trace = make_trace_of(rng.integers(0, 3, (60, 4)).tolist(), arrival_s=np.sort(rng.uniform(0, 50, 60)))
    accesses, times_s = make_prefix_trace(trace, 1), np.linspace(0, 60, 25)
    expected = []
    for end in times_s:
        inside = (accesses.arrival_s > end - 7) & (accesses.arrival_s <= end)
        held = np.repeat(inside, accesses.blocks)
        expected.append(len(set(accesses.ids[held])))
    assert count_working_set(accesses, 7, times_s).tolist() == expected


def test_the_hottest_blocks_hold_their_share():
    # PrefixTrace 5, 3, 1: reuses 4, 2, 0; the hottest third holds 4 of 6.
    blocks, held = rank_reuse(np.array([1, 5, 3]))
    np.testing.assert_allclose(held, [0, 4 / 6, 1, 1])
    np.testing.assert_allclose(blocks, [0, 1 / 3, 2 / 3, 1])


def test_a_trace_without_reuse_has_curves_and_figures_of_zeros():
    accesses = make_prefix_trace(make_trace_of([[1, 2, 3], [4, 5, 6]]), 1)
    assert lru_curve(accesses).token.tolist() == [0.0]
    assert not measure_distances(accesses).any()
    assert said_of(facts_cache.facts_reuse, np.zeros(0), np.zeros(0), rank_reuse(np.ones(6, int)), 1).startswith(
        "No block"
    )
    plot_cache.draw_reuse(np.zeros(0), np.zeros(0), rank_reuse(np.ones(6, int)))


def test_a_caption_states_the_seeds_of_its_own_rows_and_no_varied_value(workload):
    def state(*arguments, **options):
        return state_study(workload, range(7), *arguments, **options)

    start = "n = 7 multi-turn requests of 300 conversations; "
    fixed = "block size 16 tokens, 2 conversations/s, causal clock; cold start, prompts only; "
    assert state() == f"{start}{fixed}seed 0."
    assert state(pd.DataFrame({"seed": [3, 4, 5, 3]})) == f"{start}{fixed}3 seeds from 3 on."
    two = pd.DataFrame({"seed": [3, 9]})
    assert state(two, cached=None) == f"{start}{fixed.replace(', prompts only', '')}seeds 3, 9."
    sizes = state(pd.DataFrame({"seed": []}), varied={"block_size": ["1", "1024"]})
    assert sizes == (
        f"{start}2 conversations/s, causal clock; varied: block size (1, 1024); cold start, prompts only; seed 0."
    )


def test_an_interval_is_moved_no_further_than_rates_go():
    # of the first seed, 10 % (0 to 60 %); the mean of the seeds is 5 %: -5 % is no rate
    low, high = move_interval(0.0, 0.6, 0.1, 0.05)
    assert (low, high) == (0.0, pytest.approx(0.55)) and not np.signbit(low)
    assert move_interval(0.9, 1.0, 0.95, 1.0)[1] == 1.0
    assert move_interval(-0.2, 0.1, 0.0, -0.1, -1) == pytest.approx((-0.3, 0.0))


def test_few_blocks_are_studied_from_one_block_on():
    assert study.spread_capacities(64, 3).tolist() == [1, 8, 64]
    assert study.spread_capacities(1, 5).tolist() == study.spread_capacities(0, 5).tolist() == [1]
    assert study.spread_capacities(2_000_000, 2).tolist() == [100, 2_000_000]
