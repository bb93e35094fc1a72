"""The engines, one entry per engine: what the command, the engine study, its figures and its tables know of them.

One more engine is one more entry. An engine's module is loaded when the engine is made, so help loads none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from kvprefix.engines.versions import SGLANG_VERSIONS, VLLM_VERSIONS


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An engine with options, as the report compares it with others at equal memory.

    Attributes
    ----------
    name, label : str
        In tables of numbers, and for readers.
    options : dict
        How it differs from the engine with the report's block size: `version`, `block_size`, `outputs`.
    look : dict, optional
        `facecolor` and `hatch` of its bars; the next free ones if not given.
    """

    name: str
    label: str
    options: dict = field(default_factory=dict)
    look: dict | None = None


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine.

    Attributes
    ----------
    name, label : str
        For the command, and for readers.
    definition : str
        What its cache is, in a few words.
    load : callable
        Returns a class. ``load()(version, *, block_size, blocks, outputs, overlap)`` has ``replay(trace)``, which gives
        an `EngineReplayed`, ``explain_refusal(prompt_tokens)``, `outputs` and `overlap`, and the class `null_blocks`:
        how many blocks of a pool are never used.
    takes_paths : bool
        Whether its ``replay`` also takes the `Paths` of the requests, if they are known already.
    runs_at_once : bool
        Whether it takes an `overlap` of requests.
    variants : tuple of Variant
        What the report compares; the engine itself if not given.
    """

    name: str
    label: str
    definition: str
    load: Callable
    takes_paths: bool = False
    runs_at_once: bool = False
    variants: tuple = ()

    def make(self, version=None, **options):
        """Make the engine; without a version, the newest one whose rules are known."""
        return self.load()(**options) if version is None else self.load()(version, **options)

    def list_variants(self):
        """Return the variants that the report compares."""
        return self.variants or (Variant(name=self.name, label=self.label),)


def _load_vllm():
    from kvprefix.engines.vllm import VLLM

    return VLLM


def _load_sglang():
    from kvprefix.engines.sglang import SGLang

    return SGLang


_NEWEST, _LEGACY = VLLM_VERSIONS.newest, VLLM_VERSIONS.rows[0].checked
ENGINES = {engine.name: engine for engine in (
    Engine(
        name="vllm", label="vLLM", load=_load_vllm, takes_paths=True, runs_at_once=True,
        definition=f"blocks in a free queue, the least recently freed is evicted first; as in {_NEWEST}",
        variants=(
            Variant(name="vllm", label=f"vLLM {_NEWEST}", look={"facecolor": "#10507A", "hatch": ""}),
            Variant(
                name="vllm_prompts", label=f"vLLM {_NEWEST}, nothing generated", options={"outputs": False},
                look={"facecolor": "#6FA8C9", "hatch": "////"},
            ),
            Variant(
                name="vllm_legacy", label=f"vLLM up to {_LEGACY}", options={"version": _LEGACY},
                look={"facecolor": "#6FA8C9", "hatch": ""},
            ),
        ),
    ),
    Engine(
        name="sglang", label="SGLang", load=_load_sglang, takes_paths=True,
        definition=f"a tree of pages, the least recently used leaf is evicted first; as in {SGLANG_VERSIONS.newest}",
        variants=(
            Variant(name="sglang_page", label="SGLang, pages as large", look={"facecolor": "#E08A00", "hatch": "...."}),
            Variant(
                name="sglang_token", label="SGLang, pages of one token", options={"block_size": 1},
                look={"facecolor": "#E08A00", "hatch": "xxxx"},
            ),
        ),
    ),
)}  # fmt: skip
