"""The explorer's controls: a widget for each setting, by the setting's name."""

import math

import ipywidgets as widgets

from kvprefix.cache.policies import POLICIES
from kvprefix.models.memory import list_models

BLOCK_SIZES = (16, 32, 64, 128, 256, 512)
WIDE, NAMES = {"width": "34em", "max_width": "100%"}, {"description_width": "14em"}


def make_controls(settings, parameters):
    """Make the widgets, which show some settings.

    Parameters
    ----------
    settings : Settings
    parameters : Parameters
        A slider that has no effect under them is disabled.

    Returns
    -------
    dict of str to ipywidgets.Widget
    """
    sizes = sorted({*BLOCK_SIZES, settings.block_size})
    models = list(dict.fromkeys([*list_models()["model"], settings.kv_model]))
    labels = [(one.label, one.name) for one in POLICIES.values()]
    made = {
        "arrival_rate": _slide("conversations per s", settings, "arrival_rate", (0.01, 100)),
        "think_median_s": _slide("think time (median, s)", settings, "think_median_s", (1, 2000)),
        "block_size": widgets.SelectionSlider(
            options=sizes, value=settings.block_size, description="block size (tokens)", continuous_update=False
        ),
        "gib": _slide("memory (GiB)", settings, "gib", (0.1, 10_000)),
        "kv_model": widgets.Dropdown(options=models, value=settings.kv_model, description="of KV cache of"),
        "policy": widgets.Dropdown(options=labels, value=settings.policy, description="policy"),
        "replies": widgets.Checkbox(value=settings.replies, description="replies cached", indent=True),
    }
    for one in made.values():
        one.style, one.layout = NAMES, WIDE
    made["arrival_rate"].disabled = not hasattr(parameters.make("arrivals"), "rate")
    made["think_median_s"].disabled = not _has_median(parameters)
    return made


def read_control(name, value):
    """Return a widget's value as a setting: a slider's is rounded to three digits.

    >>> read_control("arrival_rate", 5.011872), read_control("block_size", 16)
    (5.01, 16)
    """
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _slide(label, settings, name, limits):
    """Make a slider on a log scale whose limits hold the present value, if that is above 0."""
    value = getattr(settings, name) or limits[0]
    low, high = math.log10(min(limits[0], value)), math.log10(max(limits[1], value))
    return widgets.FloatLogSlider(
        value=min(max(value, 10**low), 10**high), min=low, max=high, step=0.05, description=label, readout_format=".3g",
        continuous_update=False,
    )  # fmt: skip


def _has_median(parameters):
    clock = parameters.make("clock")
    return hasattr(clock, "think_time") and hasattr(clock.think_time(), "median_s")
