"""The whole report, all notebooks, on strange little data sets: nothing fails, and all that it prints means something.

Alone: `pytest tests/test_strange_data.py`; one data set: `-k "one_turn"`.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from samples import save_small_tokenizer
from strange_data import CASES, find_faults, make_report

pytestmark = pytest.mark.strange


@pytest.fixture(scope="module")
def reports(request, tmp_path_factory):
    """Return a report of each data set that is asked for, as a future, made two at a time in processes of their own."""
    folder = tmp_path_factory.mktemp("strange")
    small, fallback = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("fallback")
    tokenizers = {"small": save_small_tokenizer(small), "fallback": save_small_tokenizer(fallback, template=None)}
    asked = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), mp_context=context) as pool:
        places = {name: folder / str(k) for k, name in enumerate(asked)}
        yield {name: pool.submit(make_report, name, place, tokenizers) for name, place in places.items()}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "_").replace(",", ""))
def test_every_notebook_runs_and_the_report_means_something(name, reports):
    folder, lacking = reports[name].result()
    faults = [*lacking, *find_faults(folder)]
    assert not faults, "\n".join(faults)
