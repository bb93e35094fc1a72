"""One entry is enough: a dummy of each kind, written into a copy of the library, is found wherever there is a list."""

import shutil
import subprocess
import sys

import pytest
from places import PROJECT

from kvprefix.traces.arrivals import ARRIVALS, Clients, Gamma, Poisson, Stamps
from kvprefix.traces.clock import AtOnce, BackToBack, Causal
from kvprefix.traces.parameters import Parameters, make_entry
from kvprefix.traces.table import list_entries
from kvprefix.traces.think import THINKS, Lognormal

DUMMIES = {
    "arrivals.py": '''

@ARRIVALS.entry("metronome:PHASE[:FILE]", "one every 1 / rate seconds, the first after PHASE of them")
@dataclass(frozen=True)
class Metronome(Arrivals):
    rate: float = of_table("arrival_rate", required=True)
    phase: float = option("number", "phase", least=0, most=1)
    file: str | None = option("path", "file of nothing", default=None)

    def draw(self, n, rng):
        return (np.arange(n) + self.phase) / self.rate

    def describe(self):
        return f"like a metronome, {self.rate:g} a second"
''',
    "clock.py": '''

@CLOCKS.entry("tick", "the median think time after the turn before")
@dataclass(frozen=True, kw_only=True)
class Tick(Clock):
    seconds: float = of_table("think_median_s")
    naive = False

    def delay(self, requests, rng):
        return np.full(len(requests), float(self.seconds))

    def describe(self):
        return f"the next turn follows {self.seconds:g} s after the one before"
''',
    "think.py": '''

@THINKS.entry("coin", "the median or nothing")
@dataclass(frozen=True)
class Coin(Think):
    median_s: float = of_table("think_median_s")

    def draw_times(self, n, rng):
        return self.median_s * rng.integers(0, 2, n)

    def describe(self):
        return f"{self.median_s:g} s or no time to think"
''',
}  # fmt: skip

LOOK = """
import sys, numpy as np, pandas as pd
from said import make_stats
from kvprefix.report import captions
from kvprefix.report.facts import conclusion as facts_conclusion
from kvprefix.report.facts import workload as facts_workload
from kvprefix.report.words import say
from kvprefix.traces.clock import schedule_turns
from kvprefix.traces.parameters import parse_parameters

given = parse_parameters({"arrivals": "metronome:0.5", "arrival_rate": "4", "clock": "tick", "think": "coin",
                          "think_median_s": "9"})
requests = pd.DataFrame({"conversation_index": [0, 0, 1, 1], "turn": [0, 1, 0, 1], "output_tokens": 10})
rng = np.random.default_rng(0)
print(schedule_turns(requests, given.make("arrivals"), given.make("clock"), rng).tolist())
print(sorted(set(given.make("think").draw(20, rng).tolist())))
stats = make_stats()
stats["multi_turn"]["parameters"] |= given.as_dict()
print(captions.state_clock(given.as_dict()))
print(say("method.md", facts_workload.facts_method(stats)))
print(facts_workload.list_parameters(stats).to_string())
print(say("limits.md", facts_conclusion.facts_limits({}, given)))
print(given.make("clock"), given.timing_files(), given.with_absolute_files().arrivals)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return a copy of the library in which each kind has one class more."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PROJECT / "lib/kvprefix", folder / "kvprefix", ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in DUMMIES.items():
        path = folder / "kvprefix/traces" / name
        path.write_text(path.read_text() + code)
    return folder


def run(copy, *words):
    """Run Python on the copy."""
    places = f"{copy}:{PROJECT / 'lib/tests/helpers'}"
    done = subprocess.run(
        [sys.executable, *words], env={"PYTHONPATH": places, "HOME": str(copy), "COLUMNS": "500"}, cwd=copy,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_an_entry_of_each_kind_is_in_every_list(copy):
    forms = ["metronome:PHASE[:FILE]", "tick", "coin"]
    shown = run(copy, "-I", str(copy / "kvprefix/traces/table.py"))  # make help
    assert all(f" or {form}\n" in shown for form in forms)
    shown = run(copy, "-m", "kvprefix", "run", "--help")
    assert all(f" or {form} (default: " in shown for form in forms)
    page = run(copy, "-c", "from kvprefix.traces.table import TABLE, format_page; print(format_page(TABLE))")
    assert "`metronome:PHASE[:FILE]` (one every 1 / rate seconds, the first after PHASE of them) |" in page
    assert "`tick` (the median think time after the turn before) |" in page
    assert "`coin` (the median or nothing) |" in page
    for name, form in zip(("arrivals", "clock", "think"), forms, strict=True):
        error = run(copy, "-m", "kvprefix", "prepare", f"--{name}=no-such")
        assert "not known; known: " in error and f", {form}" in error, error
    error = run(copy, "-m", "kvprefix", "prepare", "--arrivals=metronome:2")
    assert error == "error: arrivals 'metronome:2': the phase is 2.0; expected a number, from 0 to 1\n"


def test_an_entry_of_each_kind_is_drawn_and_said_in_figures_tables_and_text(copy):
    times, thinks, caption, method, *rest = run(copy, "-c", LOOK).splitlines()
    assert times == "[0.125, 9.125, 0.375, 9.375]" and thinks == "[0.0, 9.0]"
    assert caption == "4 conversations/s (metronome:0.5), tick clock"
    assert "start like a metronome, 4 a second; the next turn follows 9 s after the one before. Seed" in method
    assert any(line.split()[1:] == ["arrivals", "metronome:0.5"] for line in rest)
    assert any("are modelled (`metronome:0.5`), not observed. Think times (`coin`)" in line for line in rest)
    assert rest[-1] == "the next turn follows 9 s after the one before [] metronome:0.5"


def test_objects_check_themselves_and_say_what_they_are():
    assert str(Gamma(2.0, cv=4)) == "conversations start 2 per second, with gamma gaps of coefficient of variation 4"
    assert str(Causal(think="constant", think_median_s=7)).endswith("s per generated token) and a think time of 7 s")
    assert str(BackToBack()).startswith("the turns follow the naive clock back_to_back, which")
    assert str(Lognormal(80, 1.25)) == "a lognormal think time (median 80 s, sigma 1.25)"
    assert repr(Poisson(2.0)) == "Poisson(rate=2.0)" and Stamps("s.txt").files == ["s.txt"]
    assert AtOnce() == AtOnce(ttft_s=Parameters().ttft_s)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Poisson(0), "arrival_rate is 0; expected a number of conversations per second, from 1e-06 to 1e"),
        (lambda: Gamma(2.0, True), "coefficient of variation is True; expected a number, from 0.001 to 1000"),
        (lambda: Clients(2.0, 2.5), "number of clients is 2.5; expected a whole number, from 1 to 100000"),
        (lambda: Clients(2.0, 10, 2, 0), "skew is 0; expected a number, from 0.001 to 10"),
        (lambda: Clients(2.0, 100_000, 11), "'clients:100000:11': the coefficient of variation is 11; expected at"),
        (lambda: Stamps(" "), "file of stamps is ' '; expected a path"),
        (lambda: Causal(think="data: "), "think time 'data: ': the file of think times is ' '; expected a path"),
        (lambda: Causal(ttft_s="1"), "ttft_s is '1'; expected a number of seconds, from 0 to 86400"),
    ],
)  # fmt: skip
def test_objects_refuse_what_makes_no_sense(make, said):
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        make()


@pytest.mark.parametrize("text", ["gamma:4", "day:rates.txt", "clients:30:2", "stamps:s.txt", "poisson"])
def test_an_entry_is_parameters_again(text):
    given = {"arrivals": text, "arrival_rate": 3.0}
    entry = make_entry("arrivals", given)
    expected = given if not text.startswith("stamps") else {"arrivals": text}
    assert entry.as_parameters("arrivals") == expected and make_entry("arrivals", expected | given) == entry


def test_a_module_that_registers_nothing_has_no_entries():
    assert list_entries(PROJECT / "lib/kvprefix/traces/table.py") == {}
    assert list(list_entries(PROJECT / "lib/kvprefix/traces/think.py")) == [cls.form for cls in THINKS.values()]
    assert all(cls.name == name for name, cls in ARRIVALS.items())
