"""The explorer's panel: it reads the controls, asks the core, and shows a figure and a sentence."""

import html
from dataclasses import replace

import ipywidgets as widgets
from IPython.display import display

from kvprefix.cache.rules.lru import LRU
from kvprefix.files.paths import InputError
from kvprefix.report.facts.explore import facts_readout
from kvprefix.report.play.controls import make_controls, read_control
from kvprefix.report.play.later import Later
from kvprefix.report.play.make_line import make_line
from kvprefix.report.play.picture import Shot, draw_shots, render_png
from kvprefix.report.words import say
from kvprefix.studies.explore import Settings, Warm, measure_point


class Explorer:
    """Sliders and choices that redraw hit rate over capacity.

    Parameters
    ----------
    workload : Experiment
        As from `load_workload`; its parameters are the first settings.
    **choices
        Other first settings: `gib`, `policy`, `replies`.

    Attributes
    ----------
    settings : studies.explore.Settings
        As the controls show them.
    point : dict
        Of `studies.explore.measure_point`.
    controls, buttons : dict of str to ipywidgets.Widget
        The controls by the setting's name; the buttons `pin`, `clear` and `line`.
    """

    def __init__(self, workload, **choices):
        self.parameters, self._warm, self._later = workload.parameters, Warm(workload), Later()
        self.settings, self.point, self.pins = Settings.of(self.parameters, **choices), {}, []
        self.controls = make_controls(self.settings, self.parameters)
        self.figure, self.readout, self.line = widgets.Image(format="png"), widgets.HTML(), widgets.HTML()
        self.figure.layout = {"width": "100%", "max_width": "1050px", "object_fit": "contain"}
        self.buttons = {
            "pin": _make_button("Pin", "keep this curve while you move on", self._pin),
            "clear": _make_button("Clear", "drop the pinned curves", self._clear),
            "line": _make_button("make line", "print the line that makes a report of these settings", self._print_line),
        }
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._move(name, change["new"]), "value")
        columns = ("arrival_rate", "think_median_s", "block_size", "replies"), ("gib", "kv_model", "policy")
        moved = [widgets.VBox([self.controls[name] for name in names]) for names in columns]
        controls = widgets.HBox(moved, layout={"flex_flow": "row wrap"})
        buttons = widgets.HBox([*self.buttons.values()])
        self.box = widgets.VBox([controls, self.readout, self.figure, buttons, self.line])

    def show(self):
        """Draw the figure and display the panel."""
        self._recompute()
        display(self.box)

    def _move(self, name, value):
        self.settings = replace(self.settings, **{name: read_control(name, value)})
        self._later.run(self._recompute)

    def _recompute(self):
        """Measure the present settings and draw them; then replay the policy at more capacities, one by one."""
        self.line.value = ""
        try:
            self._view = self._warm.view(self.settings)
            self.point = measure_point(self._view)
        except InputError as error:
            self.readout.value = f'<p role="alert" style="color:#B3261E">{html.escape(str(error))}</p>'
            return
        said = say("explore_readout.txt", facts_readout(self.settings, self.point))
        self.readout.value = f'<p style="font-size:1.25em;line-height:1.4">{html.escape(said)}</p>'
        self._shot = Shot(self.settings, *self._view.trace_curve(), self.point["rate"])
        self._replayed, self._left = [], []
        if self.settings.policy != LRU.name and self.point["capacity_blocks"]:
            self._replayed.append((self.settings.gib, self.point["rate"]))
            self._left = self._view.list_capacities()[1:]
        self._draw()

    def _replay_one(self):
        capacity = self._left.pop(0)
        rate = self._view.rate(capacity, self._shot.settings.policy)
        self._replayed.append((float(self._view.gib(capacity)), rate))
        self._draw()

    def _draw(self):
        figure, _ = draw_shots(self._shot, self.pins, sorted(self._replayed), float(self._view.gib(1)))
        self.figure.value = render_png(figure)
        if self._left:
            self._later.run(self._replay_one)

    def _pin(self):
        self.pins.append(self._shot)
        self._draw()

    def _clear(self):
        self.pins.clear()
        self._draw()

    def _print_line(self):
        line = make_line(self.settings.change(self.parameters))
        note = say("explore_line.txt", {"replies": self.settings.replies})
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;user-select:all"
        self.line.value = f'<pre style="{style}">{html.escape(line)}</pre><p>{html.escape(note)}</p>'


def _make_button(label, tooltip, act):
    button = widgets.Button(description=label, tooltip=tooltip)
    button.on_click(lambda _: act())
    return button
