"""From a card's memory to `--num-gpu-blocks`: what weights and an engine's own needs leave for KV blocks."""

from collections import Counter
from typing import NamedTuple

from kvprefix.files.checks import check_block_size, check_number, check_whole
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.models.cards import Card, list_cards, load_card
from kvprefix.models.layers import deal_layers
from kvprefix.models.memory import load_model
from kvprefix.models.weights import weights_bytes

UTILISATION = 0.92  # vLLM 0.32's default of --gpu-memory-utilization
OVERHEAD_GIB = 3.5  # per card: activations, CUDA graphs, libraries, what the driver keeps; see the docs
USUAL = "H100-80G"  # the card whose numbers are looked at, if none is named
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Pool(NamedTuple):
    """The KV blocks of one replica.

    Attributes
    ----------
    blocks : int
        vLLM's `--num-gpu-blocks`.
    block_size : int
        Tokens per block.
    block_bytes : int
        Bytes of one block on one card.
    groups : int
        A token block of a request takes up to one block per group of layers; 1 with full attention alone.
    kv_bytes : int
        Bytes for KV blocks on one card.
    weights_bytes : int
        Bytes of the weights on one card.
    gpus : int
    """

    blocks: int
    block_size: int
    block_bytes: int
    groups: int
    kv_bytes: int
    weights_bytes: int
    gpus: int

    @property
    def gib(self):
        """GiB for KV blocks on all cards of the replica."""
        return self.kv_bytes * self.gpus / 2**30

    @property
    def tokens(self):
        """Tokens that the blocks hold if each takes one block per group."""
        return self.blocks // self.groups * self.block_size


class Fit(NamedTuple):
    """Cards that hold a model.

    Attributes
    ----------
    card : str
    pool : Pool
        What so many of them leave.
    tokens : int
        Of KV cache; of a model with windows or states, by its mean bytes per token.
    """

    card: str
    pool: Pool
    tokens: int


def count_gpu_blocks(model, card, gpus=1, utilisation=UTILISATION, kv_dtype=None, block_size=16, **options):
    """Return how many KV blocks a replica has; see `plan_pool`.

    >>> count_gpu_blocks("Llama-3.1-8B", "H100-80G", utilisation=0.9)
    27251
    """
    return plan_pool(model, card, gpus, utilisation, kv_dtype, block_size, **options).blocks


def plan_pool(
    model, card, gpus=1, utilisation=UTILISATION, kv_dtype=None, block_size=16, *,
    weights_dtype=None, parameters=None, overhead_gib=OVERHEAD_GIB,
):  # fmt: skip
    """Compute the pool of KV blocks that cards leave for a model.

    Parameters
    ----------
    model : str or path-like
        As in `memory.load_model`.
    card : str or cards.Card
        As in `cards.load_card`.
    gpus : int
        Cards of one replica (tensor parallel).
    utilisation : float
        Share of a card's memory that the engine may take, above 0 and up to 1.
    kv_dtype, weights_dtype : str, optional
        Number types of keys and values, and of the weights.
    block_size : int
        Tokens per block; more if a recurrent state is larger than a block (see Notes).
    parameters : float, optional
        Of the model, if they are not known.
    overhead_gib : float
        GiB per card that the engine needs besides weights and blocks.

    Returns
    -------
    Pool

    Raises
    ------
    InputError
        Weights, or weights and one block, that do not fit: with the smallest number of cards that would, and the
        smallest card that would in the same number.

    Notes
    -----
    memory x utilisation - weights / gpus - overhead, over the bytes of a block, which is one page in each layer of a
    group (`layers.deal_layers`). Layers with attention take as many tokens per page as a recurrent state needs, a
    multiple of 16. vLLM pads what does not divide.
    """
    card = card if isinstance(card, Card) else load_card(card)
    gpus = check_whole(gpus, "gpus", "a whole number of cards, 1 or more")
    check_number(utilisation, "utilisation", "a share of the memory, above 0 and up to 1", least=1e-6, most=1)
    check_number(overhead_gib, "overhead_gib", "GiB, 0 or more")
    one = load_model(model, dtype=kv_dtype, tensor_parallel=gpus)
    weights = -(-weights_bytes(one, dtype=weights_dtype, parameters=parameters) // gpus)
    room = int(card.memory_bytes * utilisation - overhead_gib * 2**30) - weights
    size, block, groups = _measure_block(one.cache, check_block_size(block_size))
    pool = Pool(max(room, 0) // block, size, block, groups, max(room, 0), weights, gpus)
    if not pool.blocks:
        options = {"weights_dtype": weights_dtype, "parameters": parameters, "overhead_gib": overhead_gib}
        _refuse(model, card, pool, (utilisation, kv_dtype, block_size), options)
    return pool


def list_fits(model, block_size=16, *, usual=USUAL, numbers=3):
    """List well-known cards that hold a model, and the pools that they leave, from the smallest pool on.

    Parameters
    ----------
    model : str or path-like
        As in `memory.load_model`.
    block_size : int
    usual : str
        As in `cards.load_card`.
    numbers : int
        How many numbers of the usual card, powers of two from the least that holds the model. Besides, the smallest
        card of the table that holds it alone.

    Returns
    -------
    list of Fit

    Raises
    ------
    InputError
        No such card holds it and two blocks, or its weights are not known.

    Examples
    --------
    >>> [(fit.pool.gpus, fit.card) for fit in list_fits("Llama-3.1-70B")]
    [(2, 'H100-80G'), (1, 'B200-180G'), (4, 'H100-80G'), (8, 'H100-80G')]
    """
    weights_bytes(load_model(model))
    given = (UTILISATION, None, block_size)
    options = {"weights_dtype": None, "parameters": None, "overhead_gib": OVERHEAD_GIB}
    cards = [load_card(name) for name in list_cards().sort_values("memory (GiB)", kind="stable")["card"]]
    alone = [one for one in cards if _holds(model, one, 1, given, options)][:1]
    usual = load_card(usual)
    many = [n for n in _COUNTS if _holds(model, usual, n, given, options)][:numbers]
    found = {(one.name, 1): one for one in alone} | {(usual.name, n): usual for n in many}
    if not found:
        plan_pool(model, usual, block_size=block_size)  # says what would
    fits = [_fit(model, card, n, block_size) for (_, n), card in found.items()]
    able = [one for one in fits if one.pool.blocks > 1]  # one is the null block
    if not able:
        raise InputError(f"{model}: no well-known card leaves more than one block of {block_size:,} tokens")
    return sorted(able, key=lambda one: one.tokens)


def _fit(model, card, gpus, block_size):
    """Return the Fit of so many cards."""
    pool, one = plan_pool(model, card, gpus, block_size=block_size), load_model(model, tensor_parallel=gpus)
    return Fit(card.name, pool, pool.tokens if one.cache.is_even else pool.kv_bytes * gpus // one.bytes_per_token)


def _measure_block(cache, block_size):
    """Return tokens per block, bytes of one on one card, and groups of layers."""
    layers = [one for one in cache.layers if one.count]
    state = max((-(-one.size // cache.ranks) for one in layers if one.kind == "state"), default=0)
    token = max((-(-one.size // cache.ranks) for one in layers if one.kind != "state"), default=0)
    if state and token:  # a page of attention is no smaller than a state
        block_size = max(block_size, -(-state // (token * 16)) * 16)
    page = max(token * block_size, state)
    if not page:
        raise InputError("no layer keeps anything; expected a model with a KV cache")
    buckets = Counter()
    for one in layers:
        buckets[one.kind, one.span, one.size] += one.count
    in_group, groups = deal_layers(buckets)
    if sum(groups.values()) == 1:  # its layers may take different bytes
        size = sum(one.count * -(-one.size // cache.ranks) for one in layers)
        return block_size, size if state else size * block_size, 1
    return block_size, in_group * page, sum(groups.values())


def _refuse(model, card, pool, given, options):
    """Raise InputError for a model that does not fit, with what would."""
    utilisation, kv_dtype, block_size = given
    need = f"{pool.weights_bytes / 2**30:,.1f} GiB of weights per card"
    room = max(card.memory_bytes * utilisation / 2**30 - options["overhead_gib"], 0)
    cards = [load_card(name) for name in list_cards().sort_values("memory (GiB)", kind="stable")["card"]]
    more = _find_smallest(model, [n for n in _COUNTS if n > pool.gpus], [card], given, options)
    other = _find_smallest(model, [pool.gpus], cards, given, options)
    lacks = "" if more else f"; no number up to {_COUNTS[-1]} of {card.name} holds it"
    lacks += "" if other else "; no card of the table does in that number"
    would = " or ".join(filter(None, [more, other])) or _find_smallest(model, _COUNTS, cards, given, options)
    would = would or "fewer parameters, a higher utilisation or a lower overhead_gib: no number of any card holds it"
    raise InputError(
        f"{model} does not fit on {count(pool.gpus, card.name, card.name)}: {need} and one block of "
        f"{pool.block_size:,} tokens need more than the {room:,.1f} GiB that are left for them{lacks}; expected {would}"
    )


def _find_smallest(model, counts, cards, given, options):
    """Return the first of these numbers and cards that hold a model, in words; an empty text if none does."""
    pairs = ((n, card) for n in counts for card in cards)
    return next((f"{n} {card.name}" for n, card in pairs if _holds(model, card, n, given, options)), "")


def _holds(model, card, gpus, given, options):
    """Return whether a model and at least one block fit."""
    utilisation, kv_dtype, block_size = given
    try:
        one = load_model(model, dtype=kv_dtype, tensor_parallel=gpus)
    except InputError:  # heads that so many ranks cannot divide
        return False
    weights = weights_bytes(one, dtype=options["weights_dtype"], parameters=options["parameters"]) / gpus
    room = card.memory_bytes * utilisation - options["overhead_gib"] * 2**30 - weights
    return room >= _measure_block(one.cache, block_size)[1]
