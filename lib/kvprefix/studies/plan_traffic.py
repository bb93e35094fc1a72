"""The traffic of plans: what DATA names, at the times of a draw or at its own."""

from dataclasses import replace

from kvprefix.files.paths import resolve_input
from kvprefix.formats.lookup import recognise
from kvprefix.plan.traffic import Traffic
from kvprefix.studies.cluster import SERVICE, SERVICE_NAMES, list_accesses, read_service
from kvprefix.studies.experiment import SessionExperiment, load_study
from kvprefix.studies.explain import TRACES, Explained, open_data
from kvprefix.studies.table import draw_stretches, draw_trace, find_tree

GIVEN = Explained | Traffic  # requests at their own times, which are not drawn


def open_traffic(source, *, seed=None, rate=1.0):
    """Return the Traffic of one draw.

    Parameters
    ----------
    source : Workload, SessionExperiment, Explained or Traffic
        The last two have one draw, their own.
    seed : int, optional
        By default the source's own.
    rate : float
        How many times as fast requests arrive.
    """
    if isinstance(source, GIVEN):
        traffic = source if isinstance(source, Traffic) else give_traffic(source)
        return traffic if rate == 1 else traffic.play(rate)
    parameters = source.parameters
    changes = {"seed": parameters.seed if seed is None else seed} | _speed_up(source, rate)
    options = {"service": read_service(parameters), "seed": changes["seed"]}
    if isinstance(source, SessionExperiment):
        blocks = source.draw(parameters.block_size, **changes)
        return Traffic(blocks=blocks, looked_up=blocks.blocks, notes=tuple(source.dataset["notes"]), **options)
    trace = draw_trace(source, **changes)
    stretches = draw_stretches(source, parameters.block_size, outputs=True, **changes)
    blocks = replace(stretches.list_blocks(), output_tokens=trace.column("output_tokens"))
    return Traffic(
        blocks=blocks, looked_up=stretches.prompt_blocks, trace=trace, tree=find_tree(source.tokens, True), **options
    )


def give_traffic(data, seed=0, service=SERVICE):
    """Return the Traffic of an Explained at its own times; the seed is of routers that choose at random."""
    blocks, looked_up = list_accesses(data, outputs=data.has_tokens)
    trace, tree = (data.trace, find_tree(data.trace.tokens, True)) if data.has_tokens else (None, None)
    return Traffic(
        blocks=blocks, looked_up=looked_up, trace=trace, tree=tree, service=service, seed=seed,
        notes=tuple(data.read_notes()),
    )  # fmt: skip


def _speed_up(source, rate):
    """Return the parameters that let requests arrive `rate` times as fast."""
    parameters = source.parameters
    if rate == 1:
        return {}
    is_logged = isinstance(source, SessionExperiment) or parameters.make("arrivals").of_requests
    return {"speed": parameters.speed * rate} if is_logged else {"arrival_rate": parameters.arrival_rate * rate}


def open_source(parameters):
    """Return what DATA names, as `make_plans` takes it: chats and blocks can be drawn again, a trace of ids cannot."""
    path = resolve_input(parameters.data)
    found = None if parameters.data == "bundled" else recognise(path)
    if found is None or found.name not in TRACES:
        return load_study(parameters)
    return give_traffic(open_data(parameters, heeded=SERVICE_NAMES), parameters.seed, read_service(parameters))
