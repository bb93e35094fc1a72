"""What cards leave for a model's KV cache after its weights, and what vLLM hits there."""

from kvprefix.models.cards import load_card
from kvprefix.models.memory import to_gib
from kvprefix.models.pool import OVERHEAD_GIB, USUAL, UTILISATION
from kvprefix.report.facts.cache import measure_spread
from kvprefix.report.facts.plain import gives_facts


@gives_facts
def facts_cards(fits, reason, model, block_size, curves, frame=None, engine=None, usual=USUAL):
    """Return the blocks that cards leave for a model, and what an engine hits there.

    Parameters
    ----------
    fits : list of models.pool.Fit
    reason : str
        Why there are none.
    model : models.memory.Model
    block_size : int
        Of the report.
    curves : sequence of pandas.DataFrame
        Whose `capacity_blocks` the figure shows: cards that leave more or less are `outside`.
    frame : pandas.DataFrame, optional
        Of `studies.cards.study_cards`.
    engine : str, optional
        Its label.
    usual : str
        The card that is told of: its least number that holds the model.
    """
    ends = [one["capacity_blocks"] for one in curves]
    least, most = min(one.min() for one in ends), max(one.max() for one in ends)
    cards = []
    for place, fit in enumerate(fits):
        pool, own = fit.pool, frame[frame["fit"] == place] if frame is not None else ()
        capacity = fit.tokens / block_size
        cards.append({
            "card": fit.card, "gpus": pool.gpus, "label": fit.card if pool.gpus == 1 else f"{pool.gpus} {fit.card}",
            "blocks": pool.blocks, "block_size": pool.block_size, "groups": pool.groups, "tokens": pool.tokens,
            "gib": to_gib(capacity, block_size, model.bytes_per_token), "capacity": capacity,
            "weights_gib": pool.weights_bytes * pool.gpus / 2**30, "outside": not least <= capacity <= most,
            "token_hit_rate": measure_spread(own["token"]) if len(own) else None,
            "never_fit": int(own["never_fit"].iloc[0]) if len(own) else 0,
        })  # fmt: skip
    at = next((one for one in cards if one["card"] == load_card(usual).name), cards[0] if cards else None)
    return {
        "model": model.name, "is_even": model.cache.is_even, "layers": model.cache.describe(), "engine": engine,
       
        "reason": reason, "cards": cards, "at": at, "utilisation": UTILISATION, "overhead_gib": OVERHEAD_GIB,
        "draws": frame["seed"].nunique() if frame is not None else 0,
    }  # fmt: skip


def mark_cards(facts):
    """Return the cards as marks of a figure over capacity: (label, blocks), those that it shows."""
    return [(one["label"], one["capacity"]) for one in facts["cards"] if not one["outside"]]


def list_points(facts):
    """Return (blocks, token hit rate) of the cards that a figure shows, of a model with several groups of layers."""
    shown = [one for one in facts["cards"] if not one["outside"] and one["token_hit_rate"]]
    return [] if facts["is_even"] else [(one["capacity"], one["token_hit_rate"]["mean"]) for one in shown]
