"""The explorer without a browser: its controls redraw, its words and its make line say what the settings are."""

import asyncio
import html
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import lru_curve
from kvprefix.files.paths import InputError
from kvprefix.models.memory import load_model, to_blocks
from kvprefix.report.facts.explore import facts_label, facts_readout, find_varied
from kvprefix.report.play.controls import make_controls
from kvprefix.report.play.make_line import make_line
from kvprefix.report.play.panel import Explorer
from kvprefix.report.plots.explore import Line, draw_explored
from kvprefix.report.rounding import percent
from kvprefix.report.words import say
from kvprefix.studies.explore import Settings
from kvprefix.traces.parameters import Parameters, parse_parameters
from kvprefix.traces.workload import load_workload, make_trace

SETTINGS = Settings.of(Parameters())
POINT = {
    "capacity_blocks": 20_480, "distinct_blocks": 10**6, "lru": 0.213, "lru_next": 0.217, "unbounded": 0.6,
    "rate": 0.213, "survival_s": 38.4,
}  # fmt: skip


@pytest.fixture
def explorer(bundled_workload):
    made = Explorer(bundled_workload, gib=1.5)
    made._recompute()
    return made


def read_readout(explorer):
    return html.unescape(re.sub("<.*?>", "", explorer.readout.value))


def read_line(explorer):
    explorer.buttons["line"].click()
    return html.unescape(re.search("<pre.*?>(.*)</pre>", explorer.line.value)[1])


@pytest.mark.parametrize(
    ("settings", "point", "said"),
    [
        ({}, {}, "40 GiB: 21.3 %, +0.4 points per GiB, a block survives 38 s."),
        ({}, {"survival_s": np.nan},
         "40 GiB: 21.3 %, +0.4 points per GiB, a block survives longer than this trace can show."),
        ({"gib": 2000.0}, {"capacity_blocks": 10**6, "lru_next": 0.213},
         "2,000 GiB: 21.3 %, 0.0 points per GiB, nothing is evicted."),
        ({"gib": 0.001, "block_size": 512}, {"capacity_blocks": 0}, "0.001 GiB: no block of 512 tokens fits."),
        ({"policy": "s3fifo"}, {"rate": 0.19},
         "40 GiB: 19.0 % with S3-FIFO, −2.3 points against LRU (21.3 %). "
         "Under LRU: +0.4 points per GiB, a block survives 38 s."),
    ],
)  # fmt: skip
def test_the_readout(settings, point, said):
    assert say("explore_readout.txt", facts_readout(replace(SETTINGS, **settings), POINT | point)) == said


def test_curves_are_named_by_what_tells_them_apart():
    many = [SETTINGS, replace(SETTINGS, arrival_rate=1.0, policy="opt"), replace(SETTINGS, block_size=1, replies=True)]
    varied = find_varied(many)
    assert [say("explore_label.txt", facts_label(one, varied)) for one in many] == [
        "2 conversations per s, blocks of 16 tokens, prompts only",
        "1 conversation per s, blocks of 16 tokens, marked: OPT, prompts only",
        "2 conversations per s, blocks of 1 token, replies cached",
    ]
    assert say("explore_label.txt", facts_label(SETTINGS, [])) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("arrival_rate", 7.0), ("think_median_s", 20.0), ("block_size", 64), ("gib", 0.3), ("kv_model", "Qwen3-32B"),
     ("policy", "opt"), ("replies", True)],
)  # fmt: skip
def test_each_control_redraws_the_figure_and_the_readout(explorer, name, value):
    figure, readout = bytes(explorer.figure.value), explorer.readout.value
    explorer.controls[name].value = value
    assert bytes(explorer.figure.value) != figure and bytes(explorer.figure.value).startswith(b"\x89PNG")
    assert explorer.readout.value != readout
    assert getattr(explorer.settings, name) == value


def test_the_printed_line_makes_the_workload_whose_curve_holds_the_point(explorer, shared_derived):
    for name, value in {"arrival_rate": 5.0119, "think_median_s": 31.6, "block_size": 32, "gib": 0.8}.items():
        explorer.controls[name].value = value
    explorer.controls["kv_model"].value = "Qwen3-8B"
    words = shlex.split(read_line(explorer))
    assert words[:2] == ["make", "report"] and words[2].startswith("NAME=explore-")
    given = {name.lower(): text for name, _, text in (word.partition("=") for word in words[3:])}
    assert given == {
        "max_conversations": "300", "block_size": "32", "arrival_rate": "5.01", "think_median_s": "31.6",
        "kv_model": "Qwen3-8B",
    }  # fmt: skip
    parameters = parse_parameters(given)
    trace = make_trace(load_workload(parameters, progress=False), "multi_turn")
    curve = lru_curve(make_prefix_trace(trace, parameters.block_size))
    capacity = to_blocks(0.8, parameters.block_size, load_model(parameters.kv_model).bytes_per_token)
    assert curve.token[capacity] == explorer.point["rate"] > 0
    assert read_readout(explorer).startswith(f"0.8 GiB: {percent(curve.token[capacity])}, ")
    explorer.controls["gib"].value = 0.9
    assert explorer.line.value == ""  # it is no longer right


def test_a_line_holds_what_differs_as_a_shell_needs_it():
    assert make_line(Parameters()) == "make report"
    line = make_line(Parameters(data="my '$x'; `a`.json", arrivals="gamma:4", seed=3, drop_duplicates=True))
    _, _, name, *words = shlex.split(line)
    assert words == ["DATA=my '$x'; `a`.json", "ARRIVALS=gamma:4", "SEED=3", "DROP_DUPLICATES=true"]
    assert name == "NAME=explore-data-my-x-a-arrivals-gamma-4-seed-3-drop_duplicates-true"
    assert len(shlex.split(make_line(Parameters(data="x" * 300)))[2]) <= 105


def test_a_pin_stays_as_a_ghost_until_it_is_cleared(explorer):
    explorer.controls["arrival_rate"].value = 8.0
    without = explorer.figure.value
    explorer.buttons["pin"].click()
    explorer.controls["arrival_rate"].value = 1.0
    explorer.buttons["pin"].click()
    explorer.controls["arrival_rate"].value = 8.0
    assert [pin.settings.arrival_rate for pin in explorer.pins] == [8.0, 1.0] and explorer.figure.value != without
    explorer.buttons["clear"].click()
    assert explorer.pins == [] and explorer.figure.value == without


def test_a_setting_that_no_report_can_have_is_said_and_the_figure_stays(bundled_workload):
    explorer = Explorer(replace(bundled_workload, parameters=replace(bundled_workload.parameters, think_sigma=2.5)))
    explorer._recompute()
    figure = explorer.figure.value
    explorer.controls["think_median_s"].value = 2000.0
    assert 'role="alert"' in explorer.readout.value and "think times are longer than a day" in read_readout(explorer)
    assert explorer.figure.value == figure
    explorer.controls["think_median_s"].value = 20.0
    assert "GiB: " in read_readout(explorer)


def test_another_policy_s_points_come_one_by_one_and_lru_s_curve_stays(explorer, monkeypatch):
    monkeypatch.setattr(explorer, "_draw", lambda draw=explorer._draw: (drawn.append(len(explorer._replayed)), draw()))
    drawn = []
    explorer.controls["policy"].value = "fifo"
    assert drawn == list(range(1, len(drawn) + 1)) and len(drawn) >= 5
    assert sorted(explorer._replayed)[-1][1] == pytest.approx(explorer.point["unbounded"])


def test_of_fast_moves_only_the_last_is_computed(explorer, monkeypatch):
    views, view = [], explorer._warm.view
    monkeypatch.setattr(explorer._warm, "view", lambda settings: views.append(settings) or view(settings))

    async def move():
        for rate in (3.0, 4.0, 5.0, 6.0):
            explorer.controls["arrival_rate"].value = rate
        explorer.controls["policy"].value = "fifo"
        await asyncio.sleep(0.2)
        explorer.controls["policy"].value = "lru"  # the points that are left are dropped
        await asyncio.sleep(1)

    asyncio.run(move())
    assert [(one.arrival_rate, one.policy) for one in views] == [(6.0, "fifo"), (6.0, "lru")]
    assert explorer._replayed == []


def test_a_slider_without_effect_is_disabled(tmp_path):
    (tmp_path / "stamps").write_text("1\n2\n")
    stamps = Parameters(arrivals=f"stamps:{tmp_path / 'stamps'}", think=f"data:{tmp_path / 'stamps'}")
    for parameters, expected in (
        (Parameters(), (False, False)), (stamps, (True, True)), (Parameters(clock="back_to_back"), (False, True))
    ):  # fmt: skip
        controls = make_controls(Settings.of(parameters), parameters)
        assert (controls["arrival_rate"].disabled, controls["think_median_s"].disabled) == expected


def test_controls_hold_any_setting_that_a_report_can_have():
    odd = Parameters(arrival_rate=1e-6, think_median_s=0.0, block_size=7)
    controls = make_controls(Settings.of(odd), odd)
    assert controls["block_size"].value == 7 and controls["arrival_rate"].value == pytest.approx(1e-6)
    with pytest.raises(InputError):
        Settings.of(odd, policy="lru").change(odd) and Parameters(arrival_rate=0)


def test_the_figure_shows_every_line_and_its_data():
    gib, token = np.array([1.0, 10.0]), np.array([0.1, 0.5])
    present, pin = Line("LRU now", gib, token, (5.0, 0.3)), Line("pinned, x", 2 * gib, token, (0.01, 0.1))
    points = ("S3-FIFO", {"color": "#E08A00", "linestyle": "-", "marker": "D"}, [(1.0, 0.2), (5.0, 0.3)])
    figure, data = draw_explored(present, [pin], points, block_gib=0.002, block_size=16, model="Llama-3.1-8B")
    assert list(data["line"].unique()) == ["LRU, LRU now", "LRU, pinned, pinned, x", "S3-FIFO"] and len(data) == 6
    low, high = figure.axes[0].get_xlim()
    assert low < 0.01 and high > 20 and figure.axes[0].get_ylim() == (0, 1)
