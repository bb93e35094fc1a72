"""Measure how much of a chat workload's KV cache can be shared between requests.

Data flows one way through the modules, in this order::

    readers -> conversations -> chat -> arrivals -> trace -> blocks -> sharing -> metrics -> plot, tables, report

`workload` joins the first half (a data file to a cached, tokenised trace) and `run` the second (a trace to
the files of a report folder). Modules are imported on first use, so that ``import kvprefix`` is quick.
"""

__version__ = "0.1.0"
