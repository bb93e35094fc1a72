"""Origins and causes over capacity, on several draws of the clock: what figures and tables of a report are made of."""

from kvprefix.studies.cache import measure_seeds, spread_capacities
from kvprefix.studies.draws import is_settled
from kvprefix.studies.experiment import SessionExperiment
from kvprefix.studies.explain import Explained, explain_misses, explain_provenance, explain_trace, open_workload
from kvprefix.studies.explain_tables import tabulate_parts
from kvprefix.studies.table import draw_trace


def draw_explained(workload, seed=None):
    """Return the Explained of one draw of the multi-turn requests of a Workload, or of a SessionExperiment's.

    Parameters
    ----------
    workload : Workload or SessionExperiment
    seed : int, optional
        By default the workload's own; then its requests have their names.
    """
    own = workload.parameters.seed if seed is None else seed
    if isinstance(workload, SessionExperiment):
        size = workload.parameters.block_size
        return Explained(trace=workload.draw(size, seed=own), block_size=size)
    return open_workload(workload) if seed is None else explain_trace(workload, draw_trace(workload, seed=seed))


def choose_capacities(data, points=13):
    """Return capacities at equal ratios, from a 2,000th of the data's distinct blocks to all of them, and 0: no bound.
    """
    blocks = data.trace.blocks(data.block_size) if data.has_tokens else data.trace
    return [*spread_capacities(blocks.n_distinct, points, max(blocks.n_distinct // 2000, 1)).tolist(), 0]


def study_origins(workload, capacities, *, outputs=False, policy="lru"):
    """Measure where hits come from, over capacity.

    Parameters
    ----------
    workload : Workload or SessionExperiment
    capacities : sequence of int
        Blocks; 0 if nothing is evicted.
    outputs : bool
        Whether generated tokens are cached.
    policy : str
        A name in POLICIES.

    Returns
    -------
    pandas.DataFrame
        `seed`, `capacity_blocks` (0: nothing is evicted), `part`, `tokens`, `token` (the share of the prompt tokens)
        and, for the first seed, `low` and `high`: its 95 % interval over resampled conversations.
    """
    return _study(workload, "origins", measure_origins, capacities, outputs, policy)


def study_causes(workload, capacities, *, outputs=False, policy="lru"):
    """Measure why the rest is missed, over capacity; as `study_origins`."""
    return _study(workload, "causes", measure_causes, capacities, outputs, policy)


def _study(workload, name, measure, *options):
    capacities, *others = options
    options = tuple(int(one) for one in capacities), *others
    return measure_seeds(
        workload, name, list(options), measure, options,
        enough=lambda table: is_settled(table, ["capacity_blocks", "part"]),
    )  # fmt: skip


def measure_origins(workload, seed, capacities, outputs, policy):
    """Measure origins on one draw; the rows of `study_origins` for its seed."""
    data = draw_explained(workload, seed)
    found = [explain_provenance(data, outputs=outputs, capacity=one or None, policy=policy) for one in capacities]
    return _tabulate(found, workload, seed)


def measure_causes(workload, seed, capacities, outputs, policy):
    """Measure causes on one draw; the rows of `study_causes` for its seed."""
    bounds = [one or None for one in capacities]
    found = explain_misses(draw_explained(workload, seed), bounds, outputs=outputs, policy=policy)
    return _tabulate(found, workload, seed)


def _tabulate(found, workload, seed):
    frame = tabulate_parts(found, with_intervals=seed == workload.parameters.seed)
    return frame.assign(seed=seed)[["seed", *frame]]
