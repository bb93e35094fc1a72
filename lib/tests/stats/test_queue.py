"""Queues, one per server: Lindley's recursion against a plain one, known means, and queues that grow."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from places import CARRIED

from kvprefix.files.paths import InputError
from kvprefix.stats.queue import mean_wait, offered_load, queue_waits, rate_queue

KNOWN = json.loads((CARRIED / "queue.json").read_text())["rows"]


def wait_plainly(arrival_s, service_s):
    """Return the waits of a server that is free from some moment on."""
    free, waits = 0.0, []
    for arrived, served in zip(arrival_s, service_s, strict=True):
        waits.append(max(0.0, free - arrived))
        free = max(free, arrived) + served
    return waits


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 9)), max_size=30))
def test_waits_are_those_of_a_server_that_is_free_again(steps):
    arrival = np.cumsum([gap for gap, _ in steps])
    service = [served for _, served in steps]
    assert queue_waits(arrival, service).tolist() == wait_plainly(arrival, service)


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 9), some.integers(0, 2)), max_size=20))
def test_servers_have_a_queue_each(rows):
    gaps, services, places = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    arrivals, waits = np.cumsum(gaps), np.zeros(len(rows))
    for place in set(places.tolist()):
        own = places == place
        waits[own] = wait_plainly(arrivals[own], services[own])
    assert queue_waits(arrivals, services, places).tolist() == waits.tolist()


@pytest.mark.parametrize("row", KNOWN)
def test_mean_waits_are_pollaczek_and_khinchine_s(row):
    kind, load = row[:5], float(row.rpartition("=")[2])
    draw = np.random.default_rng(7)
    arrival = np.cumsum(draw.exponential(1 / load, 4_000_000))
    service = np.ones(len(arrival)) if kind == "M/D/1" else draw.exponential(1.0, len(arrival))
    expected = load * (1 if kind == "M/D/1" else 2) / (2 * (1 - load))
    assert expected == pytest.approx(KNOWN[row]["pk"], rel=2e-2)
    assert queue_waits(arrival, service).mean() == pytest.approx(expected, rel=2e-2)
    assert mean_wait(load, service) == pytest.approx(expected, rel=2e-2)


def test_a_known_load_by_hand():
    assert mean_wait(0.6, 1.0) == pytest.approx(0.75)
    assert mean_wait(0.5, [1.0, 1.0]) == pytest.approx(0.5)
    assert offered_load(2.0, [0.1, 0.3]) == pytest.approx(0.4)
    assert mean_wait(0.0, 1.0) == 0


@pytest.mark.parametrize("rate", [1.0, 1.5])
def test_a_server_that_cannot_keep_up_has_no_mean_wait(rate):
    assert mean_wait(rate, 1.0) is None


def test_a_queue_that_grows_gets_no_percentile():
    found = rate_queue(np.arange(100), np.full(100, 1.2))
    assert found["grows"] and found["load"] == pytest.approx(120 / 99)
    assert {found[key] for key in ("wait_mean", "ttft_p50", "ttft_p90", "ttft_p99")} == {None}
    assert "grows without bound" in found["said"]


def test_a_queue_that_a_server_can_serve():
    found = rate_queue([0, 1, 2, 3, 100], [2, 2, 2, 2, 2])  # waits 0, 1, 2, 3, 0
    assert (found["grows"], found["said"], found["load"]) == (False, None, 0.1)
    assert (found["wait_mean"], found["ttft_p50"], found["ttft_p99"]) == (1.2, 3.0, pytest.approx(4.96))


@pytest.mark.parametrize("requests", [0, 1])
def test_too_few_requests_for_a_load(requests):
    found = rate_queue(np.zeros(requests), np.ones(requests))
    assert found["load"] is None and not found["grows"] and found["requests"] == requests
    assert found["ttft_p50"] == (1.0 if requests else None)


@pytest.mark.parametrize(
    ("arrival", "service", "message"),
    [
        ([1, 0], [1, 1], "arrivals that do not fall"),
        ([0, 1], [1, -1], "service times of 0 s or more"),
        ([0, 1], [1], "one arrival and one service time per request"),
        ([0, float("nan")], [1, 1], "all finite"),
    ],
)
def test_wrong_times_are_named(arrival, service, message):
    with pytest.raises(InputError, match=message):
        queue_waits(arrival, service)


def test_wrong_rates_are_named():
    with pytest.raises(InputError, match="rate is -1; expected requests per second, 0 or more"):
        mean_wait(-1, 1.0)
