"""The explorer's figure as a picture: the present curve, the pinned ones, each named by what tells them apart."""

import io
from typing import NamedTuple

import matplotlib as mpl
import numpy as np

from kvprefix.cache.policies import POLICIES, label_policy
from kvprefix.files.escape import plain_label
from kvprefix.report.facts.explore import facts_label, find_varied
from kvprefix.report.plots.axes import STYLE
from kvprefix.report.plots.explore import Line, draw_explored
from kvprefix.report.plots.styles import style_lines
from kvprefix.report.words import say
from kvprefix.studies.explore import Settings

DPI = 160  # on the screen


class Shot(NamedTuple):
    """A curve as it was under some settings, with the rate at their memory."""

    settings: Settings
    gib: np.ndarray
    token: np.ndarray
    rate: float


def draw_shots(present, pins, replayed, block_gib):
    """Draw the present Shot, the pinned ones, and the points of the chosen policy. Returns (figure, data)."""
    varied = find_varied([shot.settings for shot in (present, *pins)])
    lines = [_name_line(shot, varied, "pinned") for shot in pins]
    style = _style_points(present.settings.policy, replayed) if replayed else None
    return draw_explored(
        _name_line(present, varied, "LRU now" if pins else "LRU"), lines, style, block_gib=block_gib,
        block_size=present.settings.block_size, model=present.settings.kv_model,
    )  # fmt: skip


def render_png(figure):
    """Return a figure as a PNG file's bytes."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="png", facecolor="white", dpi=DPI)
    return file.getvalue()


def _name_line(shot, varied, first):
    said = say("explore_label.txt", facts_label(shot.settings, varied))
    label = plain_label(", ".join(filter(None, [first, said])))
    return Line(label, shot.gib, shot.token, (shot.settings.gib, shot.rate))


def _style_points(policy, points):
    known = {one.name: one.look.as_line() for one in POLICIES.values() if one.look}
    return plain_label(label_policy(policy)), style_lines([policy], known)[policy], points
