"""Captions: the conditions under which the numbers of a figure or a table hold, read from what it is made of.

Their words are the templates `words/*.txt.j2`. All are plain text, which is escaped when it is shown.
"""

from dataclasses import replace

from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.facts.sharing import name_mode
from kvprefix.report.words import say
from kvprefix.studies.experiment import SessionExperiment
from kvprefix.traces.parameters import make_entry

VARIED = {"block_size": "block size", "arrival_rate": "arrival rate", "think": "think time"}  # others are as written


def state_clock(parameters, varied=()):
    """Say in few words how requests arrive, from a mapping of the parameters.

    Parameters whose names are in `varied` have several values, and are left out.
    """
    return say("clock.txt", facts_clock(parameters, varied))


def caption_figure(name, stats):
    """Return the caption of one of the four figures (`figures.FIGURES`), with n and the parameters."""
    return say(f"{name}.txt", facts_conditions(stats))


def state_conditions(stats):
    """Return the conditions under which the rates of modes hold: n, parameters, warm-up, accounting."""
    return say("conditions.txt", facts_conditions(stats))


def state_study(workload, accesses, frame=None, *, varied=None, parameters=None, cached="prompts only"):
    """Return the conditions of a study's table.

    Parameters
    ----------
    workload : Workload
    accesses : sized
        Its requests.
    frame : pandas.DataFrame, optional
        Rows of a study's table, whose seeds are stated; by default one draw with the workload's own seed.
    varied : dict of str to sequence of str, optional
        The parameters that the study varies (names joined by commas) and their values; they are not stated as fixed.
    parameters : dict, optional
        What the study does not vary; by default the workload's own parameters.
    cached : str, optional
        What is cached; None leaves it out.
    """
    if isinstance(workload, SessionExperiment):
        return state_sessions(workload, {"seed": [workload.parameters.seed]} if frame is None else frame)
    parameters = parameters or workload.parameters.as_dict()
    seeds = [parameters["seed"]] if frame is None or not len(frame) else frame["seed"]
    counts = {"requests": len(accesses), "conversations": workload.dataset["conversations"]}
    return say("study.txt", counts | facts_study(parameters, seeds, varied or {}) | {"cached": cached})


def state_sessions(experiment, frame=None):
    """Return the conditions of a table of agent sessions.

    Parameters
    ----------
    experiment : studies.experiment.SessionExperiment
    frame : pandas.DataFrame or dict, optional
        Rows of a study's table, whose `seed` is stated; none if the table does not depend on when sessions start.
    """
    return say("sessions.txt", facts_starts(experiment, None if frame is None else frame["seed"]))


def state_cards(facts):
    """Return what marks of cards are, and which cards a figure does not show; of `facts.cards.facts_cards`."""
    return say("cards.txt", facts)


def name_groups(workload):
    """Return what intervals resample: the conversations of chats; of a trace of block ids its sessions, or requests."""
    if not isinstance(workload, SessionExperiment):
        return "conversations"
    return "sessions" if workload.sessions.is_linked else "requests"


def state_timing(workload, accesses, frame, changes):
    """Return the conditions of a study of `changes`; what they vary is read from the study's rows.

    Parameters
    ----------
    workload : Workload
    accesses : sized
        Its requests.
    frame : pandas.DataFrame
        Of `studies.timing.study_timing`, or some of its rows.
    changes : dict of str to dict
        What the study was given.
    """
    own, names = workload.parameters.as_dict(), list(frame["variant"].unique())
    variants = [{**own, **changes[name]} for name in names]
    varied = [key for key in own if len({one[key] for one in variants}) > 1]
    values = {",".join(varied): names} if varied else {}
    return state_study(workload, accesses, frame, varied=values, parameters=variants[0] if variants else own)


def state_templates(workload, table):
    """Return the conditions of the table of `studies.templates.study_templates`, of the conversations that it took."""
    taken, read = int(table["conversations"].max()), workload.dataset["conversations"]
    own = replace(workload, dataset=workload.dataset | {"conversations": taken})
    first = "" if taken == read else f" The first {taken:,} of {read:,} conversations."
    return state_study(own, range(int(table["requests"].max())), cached=None) + first


@gives_facts
def facts_clock(parameters, varied=()):
    """Return how requests arrive; None for what is varied, or is the usual case and needs no words."""
    starts = make_entry("arrivals", parameters)
    if starts.of_requests:
        return {"rate": None, "arrivals": starts.in_short, "clock": None}
    return {
        "rate": None if "arrival_rate" in varied else getattr(starts, "rate", None),
        "arrivals": None if "arrivals" in varied else starts.in_short or None,
        "clock": None if "clock" in varied else make_entry("clock", parameters).state(varied),
    }


@gives_facts
def facts_starts(experiment, seeds):
    """Return the size of a trace of sessions, and how they start in the draws of some seeds, if there are any."""
    notes = [] if seeds is None else experiment.say_times()
    return {
        "requests": len(experiment.sessions),
        "sessions": experiment.sessions.n_sessions if experiment.sessions.is_linked else None,
        "block_size": experiment.parameters.block_size, "timed": notes,
        "seeds": None if seeds is None else len(set(seeds)),
    }  # fmt: skip


@gives_facts
def facts_conditions(stats):
    """Return the requests of each mode, and the parameters, which are the same in all of them."""
    *_, parameters = (one["parameters"] for one in stats.values())
    return {
        "modes": [{"mode": name_mode(mode), "requests": one["requests"]} for mode, one in stats.items()],
        "block_size": parameters["block_size"],
        "clock": facts_clock(parameters),
        "seed": parameters["seed"],
    }


@gives_facts
def facts_study(parameters, seeds, varied):
    """Return what is fixed in a study, what it varies, and the seeds of its draws; none if nothing is drawn."""
    logged = not varied and make_entry("arrivals", parameters).of_requests
    names = [name for together in varied for name in together.split(",")]
    return {
        "block_size": None if "block_size" in names else parameters["block_size"],
        "clock": facts_clock(parameters, names),
        "varied": [
            {"names": [VARIED.get(name, name) for name in together.split(",")], "settings": list(settings)}
            for together, settings in varied.items()
        ],
        "seeds": [] if logged else sorted({int(seed) for seed in seeds}),
    }
