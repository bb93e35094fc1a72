"""Which full blocks of a hybrid model become visible, compiled: vLLM's rule 12, retention.

Full-attention and chunked groups keep all of them. A window keeps those at a place where a later request can resume,
a recurrent group the state there. Retention says where that is, beside the end of the prompt and the junction.
"""

from kvprefix.engines.hybrid_layout import CHUNK, FULL, WINDOW
from kvprefix.engines.vllm_runs import borrowed


@borrowed
def set_ends(ends, layout, prompt, junction):
    """Note where a later request can resume that repeats a prompt or its junction, in tokens; -1 is nowhere."""
    unit = layout.unit
    if layout.drop:
        ends[0], ends[1] = max((prompt - 1) // unit * unit - unit, 0), max(prompt // unit * unit - unit, 0)
    else:
        ends[0], ends[1] = (prompt - 1) // unit * unit, -1
    ends[2] = junction // unit * unit if junction else -1


@borrowed
def keeps(layout, one, ends, k):
    """Whether a group's full block k becomes visible."""
    if one.kind == FULL or one.kind == CHUNK:
        return True
    shift, need = 0, 1
    if one.kind == WINDOW:
        shift, need = layout.drop, one.need + layout.drop
    elif layout.retention < 0:
        return True
    if layout.retention:
        segment = (layout.unit if layout.retention < 0 else layout.retention) // one.size
        if need >= segment or (k >= shift and (k - shift) % segment >= segment - need):
            return True
        if layout.retention < 0:
            return False
    for end in ends:
        stop = end // one.size + shift
        if end >= 0 and stop - need <= k < stop:
            return True
    return False
