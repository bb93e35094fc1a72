"""The `make report` line of some parameters: what differs from the defaults, quoted as a shell needs it."""

import re
import shlex
from pathlib import Path

from kvprefix.traces.parameters import Parameters, settle_arrivals
from kvprefix.traces.table import TABLE

MOST = 100  # characters of a report's name


def make_line(parameters):
    """Return the line that makes the report of some Parameters.

    >>> from kvprefix.traces.parameters import Parameters
    >>> make_line(Parameters())
    'make report'
    >>> make_line(Parameters(data="my chats.jsonl", arrival_rate=5.0))
    "make report NAME=explore-data-my-chats-arrival_rate-5 DATA='my chats.jsonl' ARRIVAL_RATE=5"
    """
    values = parameters.as_dict()
    usual = {name: one.default for name, one in TABLE.items()}
    if parameters.data == "bundled" and values["arrivals"] != usual["arrivals"]:
        usual["arrivals"] = settle_arrivals(Parameters()).arrivals  # what `auto` is there
    changed = [one for name, one in TABLE.items() if values[name] != usual[name]]
    given = {one.name: one.show(values[one.name]).removesuffix(".0") for one in changed}
    words = [f"{name.upper()}={shlex.quote(text)}" for name, text in given.items()]
    return " ".join(["make report", *([f"NAME={name_report(given)}", *words] if given else [])])


def name_report(given):
    """Return a name for a report, of the characters that make allows: what is given, a dict of texts by name."""
    texts = (f"{name}-{Path(text).stem if TABLE[name].kind == 'path' else text}" for name, text in given.items())
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(["explore", *texts]))[:MOST]
