"""What a plan is made for: model, cards, choices, the aim, and every assumption with its source."""

import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from typing import NamedTuple

from kvprefix.cache.cluster.routers import MOST_REPLICAS, find_router
from kvprefix.engines.group_layers import group_layers
from kvprefix.engines.groups import Group
from kvprefix.files.checks import check_choice, check_number, check_whole
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError
from kvprefix.models.cards import Card, check_price, load_card
from kvprefix.models.memory import Model, load_model
from kvprefix.models.money import price_per_hour
from kvprefix.models.pool import OVERHEAD_GIB, UTILISATION, Pool, plan_pool
from kvprefix.models.prefill import prefill_seconds
from kvprefix.models.weights import cache_dtype, weights_dtype
from kvprefix.stats.queue import PERCENTILES

GIB = 2**30
MOST_GIB = 1e9


def _assume(default, label, source, unit=""):
    """Return a field that is an assumption: what it is and where its value is from."""
    return field(default=default, metadata={"label": label, "source": source, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a plan is made for.

    Attributes
    ----------
    kv_model : str
        As in `models.memory.load_model`.
    gpu : str
        As in `models.cards.load_card`.
    gpus_per_replica : int
        Cards that share the model (tensor parallel).
    replicas : tuple of int
        Numbers of replicas to compare.
    routers : tuple of str
        Names in ROUTERS, such as ``hash:1024``.
    dram : tuple of float
        GiB of each replica's second tier to compare; no second tier is always compared too.
    slo_ttft : float
        Seconds within which the first token is to come.
    slo_percentile : int
        For which share of the requests, in percent: 50, 90 or 99.

    The other fields are assumptions, see `list_assumptions`.

    Raises
    ------
    InputError
        A value that cannot be used. Whether the model fits shows when the pool is asked for.

    Examples
    --------
    >>> setup = Setup(gpu="A100-40G", replicas=[2, 4], dram=[128])
    >>> setup.pool().blocks, setup.tiers, setup.price(2, 128)
    (9391, (0.0, 128.0), 5.004)
    """

    kv_model: str = "Llama-3.1-8B"
    gpu: str = "H100-80G"
    gpus_per_replica: int = 1
    replicas: tuple = (1, 2, 4, 8)
    routers: tuple = ("rr", "session", "longest", "cache-aware-load", "dynamo", "llm-d")
    dram: tuple = (256.0, 1024.0)
    slo_ttft: float = 2.0
    slo_percentile: int = 99
    mfu: float = _assume(
        0.5, "share of a card's FLOPS that a prefill reaches",
        "assumed; published times imply 0.28 to 0.46 (explanation/memory-time-money.md)",
    )
    fixed_s: float = _assume(0.02, "seconds of every prefill besides", "assumed: one step of an engine", "s")
    utilisation: float = _assume(UTILISATION, "share of a card's memory for the engine", "vLLM 0.32's default")
    overhead_gib: float = _assume(
        OVERHEAD_GIB, "memory of the engine itself per card", "activations, graphs and libraries, as measured", "GiB"
    )
    pool_share: float = _assume(
        1.0, "share of the pool that prefixes can use", "assumed; what runs holds the rest"
    )
    weights_dtype: str | None = _assume(None, "number type of the weights", "as the model is published")
    kv_dtype: str | None = _assume(None, "number type of keys and values", "the model's config")
    load_gib_per_s: float = _assume(
        25.0, "speed of loading from DRAM, per card", "three quarters of what was measured to an H100", "GiB/s"
    )
    gpu_price: float | None = _assume(None, "price of a card", "the table of cards", "$ per hour")
    dram_price: float = _assume(
        0.004, "price of DRAM", "cloud machines of equal cores with 4 and 8 GiB per core",
        "$ per GiB and hour",
    )
    prefill_share: float = _assume(
        0.5, "share of GPU time that prefill takes without a cache", "an input: no trace tells it"
    )  # fmt: skip

    def __post_init__(self):
        check = object.__setattr__
        check(self, "replicas", tuple(dict.fromkeys(_check_replicas(one) for one in self.replicas)))
        check(self, "routers", tuple(dict.fromkeys(find_router(one).name for one in self.routers)))
        check(self, "dram", tuple(sorted({float(_check_gib(one)) for one in self.dram} - {0.0})))
        if not self.replicas or not self.routers:
            raise InputError("a plan needs at least one number of replicas and one router")
        check_number(self.slo_ttft, "slo_ttft", "seconds, above 0", least=1e-9)
        check_choice(self.slo_percentile, "slo_percentile", PERCENTILES)
        check_number(self.mfu, "mfu", "a share above 0, up to 1", least=1e-6, most=1)
        check_number(self.fixed_s, "fixed_s", "seconds, 0 to 3600", most=3600)
        check_number(self.load_gib_per_s, "load_gib_per_s", "GiB per second, above 0", least=1e-9)
        check_number(self.pool_share, "pool_share", "a share above 0, up to 1", least=1e-6, most=1)
        check_number(self.prefill_share, "prefill_share", "a share above 0, up to 1", least=1e-9, most=1)
        check_price(self.dram_price, "dram_price")
        if self.gpu_price is not None:
            check_price(self.gpu_price, "gpu_price")
        check_whole(self.gpus_per_replica, "gpus_per_replica", "a whole number of cards, 1 or more")

    @cached_property
    def model(self) -> Model:
        """The model, as its replicas' ranks hold it."""
        return load_model(self.kv_model, dtype=self.kv_dtype, tensor_parallel=self.gpus_per_replica)

    @cached_property
    def card(self) -> Card:
        """The card, with its price."""
        return load_card(self.gpu, usd_per_hour=self.gpu_price)

    @property
    def tiers(self):
        """GiB of each second tier that is compared, from none on."""
        return (0.0, *self.dram)

    def pool(self, block_size=16) -> Pool:
        """Return the pool of blocks that the cards of a replica leave; raise InputError if the model does not fit."""
        if block_size not in self._pools:
            self._pools[block_size] = plan_pool(
                self.kv_model, self.card, self.gpus_per_replica, self.utilisation, self.kv_dtype, block_size,
                overhead_gib=self.overhead_gib, weights_dtype=self.weights_dtype,
            )  # fmt: skip
        return self._pools[block_size]

    @cached_property
    def _pools(self):
        return {}  # by block size, kept for processes that do not see the files of the model

    def groups(self, block_size=16) -> tuple[Group, ...]:
        """Return the model's groups of layers, whose smallest blocks are the pool's."""
        return group_layers(self.model.row["config"], block_size=self.pool(block_size).block_size)

    def find_unit(self, block_size=16):
        """Return the tokens of which an engine's hits are a multiple, the least that all groups' blocks divide."""
        return math.lcm(*(one.block_size for one in self.groups(block_size)))

    @cached_property
    def token_bytes(self):
        """Bytes of a token that is loaded or kept below, on one card: a block of each group over its tokens."""
        pool = self.pool()
        return pool.block_bytes * pool.groups / pool.block_size

    def count_blocks(self, gib, block_size):
        """Return how many blocks of a trace fit into so many GiB of DRAM."""
        return int(gib * GIB / (self.token_bytes * self.gpus_per_replica * block_size))

    @property
    def time_prefill(self):
        """A function of cached and prompt tokens: the seconds of prefills on one replica."""
        return partial(
            prefill_seconds, model=self.model, card=self.card, gpus=self.gpus_per_replica, mfu=self.mfu,
            fixed_s=self.fixed_s, dtype=self.weights_dtype,
        )  # fmt: skip

    def time_loading(self, tokens):
        """Return the seconds in which tokens are loaded from DRAM; all cards of a replica load at once."""
        return tokens * self.token_bytes / (self.load_gib_per_s * GIB)

    def price(self, replicas, dram_gib):
        """Return the dollars per hour of replicas with so much DRAM each."""
        cards = self.gpus_per_replica * price_per_hour(self.card)
        return replicas * (cards + dram_gib * self.dram_price)

    def describe_costs(self):
        """Return all that hits, times and prices follow from, as JSON values; model and card as their files hold them.

        What is compared, and what the aim is, change none of these.
        """
        aims = ("kv_model", "gpu", "replicas", "routers", "dram", "slo_ttft", "slo_percentile")
        own = {name: value for name, value in asdict(self).items() if name not in aims}
        return [own, self.model.row, asdict(self.card)]


class Assumption(NamedTuple):
    """What a plan assumes: its field in Setup, what it is, its value, the value's unit, and where that is from."""

    name: str
    label: str
    value: float | str | None
    unit: str
    source: str

    @property
    def shown(self):
        """The value as text, with its unit."""
        if self.value is None:
            return "not known"
        return f"{self.value if isinstance(self.value, str) else format(self.value, ',g')} {self.unit}".strip()


def list_assumptions(setup):
    """Return the assumptions of a setup; what was given instead of a default says so."""
    found = []
    for one in fields(setup):
        if "label" not in one.metadata:
            continue
        value, given = getattr(setup, one.name), getattr(setup, one.name) != one.default
        if one.name == "gpu_price":
            value = setup.card.usd_per_hour
        if one.name == "kv_dtype" and value is None:
            value = cache_dtype(setup.model) or "the weights' type"
        if one.name == "weights_dtype":
            value = weights_dtype(setup.model, value)
        source = "given" if given else one.metadata["source"]
        found.append(Assumption(one.name, one.metadata["label"], value, one.metadata["unit"], source))
    return found


def read_setup(parameters, **assumptions):
    """Return the Setup of a report's Parameters, and of assumptions that differ from their defaults."""
    return Setup(
        kv_model=parameters.kv_model, gpu=parameters.gpu, gpus_per_replica=parameters.gpus_per_replica,
        replicas=_read_list(parameters.replicas, "replicas", int), routers=_read_list(parameters.routers, "routers"),
        dram=_read_list(parameters.dram, "dram", float), slo_ttft=parameters.slo_ttft, **assumptions,
    )  # fmt: skip


def _read_list(text, name, kind=None):
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"{name} is {text!r}; expected values, comma-separated")
    return tuple(parts if kind is None else [read_number(part, kind) for part in parts])


def _check_gib(value):
    return check_number(value, "dram", f"GiB per replica, 0 to {MOST_GIB:.0e}", most=MOST_GIB)


def _check_replicas(value):  # what one more would bring is measured too
    return check_whole(value, "replicas", f"a whole number, 1 to {MOST_REPLICAS - 1}", most=MOST_REPLICAS - 1)
