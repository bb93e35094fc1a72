"""Give the bytes of KV cache of a model, so that blocks can be shown as GiB.

The model is a Hugging Face `config.json` or one of a table of known models. Its bytes are a function of the length of
a sequence (`models.cache`). Blocks are shown as GiB by one number per token: exact if every layer has full attention,
else the mean of a sequence of 8,192 tokens. Weights, activations and what an engine keeps beside its blocks are not
counted.
"""

from dataclasses import dataclass, field
from pathlib import Path

from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.shown import Shown
from kvprefix.files.words import guess
from kvprefix.models.cache import AVERAGE_AT, KVCache, read_cache
from kvprefix.models.fields import check_positive, read_json


@dataclass(frozen=True)
class Model:
    """A model and what it keeps per token.

    Attributes
    ----------
    name : str
    bytes_per_token : int
        Bytes of KV cache per token, over all ranks of one replica. If it depends on the length, the mean of a sequence
        of 8,192 tokens, rounded up.
    source : str
        A file or an address.
    cache : KVCache
        The bytes as a function of length.
    row : dict
        What the table or the folder says besides: `config`, `parameters`, `active_parameters`.
    """

    name: str
    bytes_per_token: int
    source: str
    cache: KVCache | None = field(default=None, repr=False)
    row: dict = field(default_factory=dict, repr=False, compare=False)


class Memory(Shown):
    """The KV cache of a model: convert GiB to blocks and blocks to GiB.

    Parameters
    ----------
    model : str or path-like
        A known name, or a `config.json` or its folder (see `load_model`).
    dtype, tensor_parallel
        As in `kv_bytes_per_token`.

    Examples
    --------
    >>> Memory("Llama-3.1-8B").blocks(gib=[10, 40], block_size=16)
    [5120, 20480]
    """

    def __init__(self, model, *, dtype=None, tensor_parallel=1):
        self.model = load_model(model, dtype=dtype, tensor_parallel=tensor_parallel)

    def blocks(self, gib, block_size):
        """Return how many whole blocks fit into `gib` GiB (2**30 bytes): an int for a number, a list for several."""
        return to_blocks(gib, block_size, self.model.bytes_per_token).tolist()

    def gib(self, blocks, block_size):
        """Return the GiB (2**30 bytes) that blocks take: a float for a number, a list for several."""
        return to_gib(blocks, block_size, self.model.bytes_per_token).tolist()

    def describe(self):
        """Return the bytes per token and their source."""
        size, cache = self.model.bytes_per_token, self.model.cache
        mean = "" if cache.is_even else f": the mean of a sequence of {AVERAGE_AT:,} tokens"
        return {
            "what": f"KV cache of {self.model.name}",
            "a token takes": f"{size:,} bytes, so {2**30 // size:,} tokens fit into a GiB{mean}",
            "layers": cache.describe(),
            "read from": self.model.source,
            "not counted": "weights, activations, what an engine keeps beside its blocks",
        }


def kv_bytes_per_token(config, *, dtype=None, tensor_parallel=1):
    """Compute the bytes of KV cache that one token takes, over all ranks of one replica.

    Parameters
    ----------
    config : dict
        The content of a model's `config.json`. Of a multimodal model, its `text_config` counts.
    dtype : str, optional
        Number type of keys and values, a key of `fields.DTYPE_BYTES`. By default what the config says of
        the cache, its type of weights, or bfloat16. Recurrent states keep their own.
    tensor_parallel : int
        Ranks that share a replica. They divide the KV heads; with more ranks than KV heads, ranks hold copies.

    Returns
    -------
    int
        Bytes. If they depend on the length, the mean of a sequence of 8,192 tokens, rounded up (`read_cache` has the
        function).

    Raises
    ------
    InputError
        If a field is missing or wrong, fields contradict each other, the heads cannot be divided, or a field stands for
        layers whose cache is not known.

    Notes
    -----
    2 (K and V) x layers x KV heads x head size x bytes per number. Multi-head latent attention (MLA) keeps one vector
    of `kv_lora_rank` + `qk_rope_head_dim` numbers per layer for K and V together, and every rank holds all of it.

    Examples
    --------
    32 layers, 8 KV heads of 4096 / 32 = 128: 2 * 32 * 8 * 128 * 2 bytes.

    >>> config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    >>> kv_bytes_per_token(config)
    131072
    >>> kv_bytes_per_token(config, dtype="fp8"), kv_bytes_per_token(config, tensor_parallel=16)
    (65536, 262144)
    """
    return read_cache(config, dtype=dtype, tensor_parallel=tensor_parallel).bytes_per_token


def load_model(name, *, dtype=None, tensor_parallel=1):
    """Find a known model by its name, here or on the hub (case does not matter), or read a `config.json` or its folder.

    >>> load_model("llama-3.1-8b").bytes_per_token, load_model("openai/gpt-oss-20b").name
    (131072, 'gpt-oss-20b')
    """
    table, path, asked = _read_table(), resolve_input(str(name)), str(name).lower()
    row = next((row for row in table if row["name"].lower() == asked), None)
    if row is None and not path.exists():
        row = next((row for row in table if f"huggingface.co/{asked}/blob" in row["source"].lower()), None)
    if row is None and (not asked or not path.exists()):
        names = list_names()
        expected = f"expected a config.json, its folder, or one of {', '.join(names)}{guess(name, names)}"
        raise InputError(f"model {str(name)!r} is not known; {expected}")
    if row is None:
        path = path / "config.json" if path.is_dir() else path
        label = path.resolve().parent.name if path.name == "config.json" else path.stem
        row = {"name": label, "source": str(path), "config": read_json(path)}
    try:
        cache = read_cache(row["config"], dtype=dtype, tensor_parallel=tensor_parallel)
    except InputError as error:
        raise InputError(f"{path if row['source'] == str(path) else name}: {error}") from error
    return Model(row["name"], cache.bytes_per_token, row["source"], cache, row)


def describe_memory(name, tokens, *, dtype=None, tensor_parallel=1):
    """Compute what sequences of several lengths take in a model's KV cache, as JSON values.

    Parameters
    ----------
    name, dtype, tensor_parallel
        As in `load_model`.
    tokens : sequence of int
        Lengths.

    Returns
    -------
    dict
        All in bytes over all ranks of one replica but `bytes_per_rank`. `resumable_prefix_bytes` is what must be cached
        of a prefix so that a request can continue behind it; `marginal_bytes_per_token` what each further token of a
        long sequence takes; `bytes_per_token` the number by which blocks are shown as GiB; `assumed` the fields that
        the config leaves out and transformers' defaults fill in.

    Examples
    --------
    >>> describe_memory("Llama-3.1-8B", [1, 8192])["bytes"]
    {'1': 131072, '8192': 1073741824}
    """
    model = load_model(name, dtype=dtype, tensor_parallel=tensor_parallel)
    cache = model.cache
    return {
        "model": model.name, "source": model.source, "layers": cache.describe(), "attention": cache.attention,
        "tensor_parallel": cache.ranks,
        "bytes": {str(n): cache.sequence_bytes(n) for n in tokens},
        "resumable_prefix_bytes": {str(n): cache.prefix_bytes(n) for n in tokens},
        "bytes_per_rank": {str(n): cache.sequence_bytes(n) // cache.ranks for n in tokens},
        "marginal_bytes_per_token": cache.marginal_bytes, "bytes_per_token": model.bytes_per_token,
        "assumed": list(cache.assumed),
    }  # fmt: skip


def format_memory(found):
    """Return what `describe_memory` gives as a table with lines below it."""
    import pandas as pd

    rows = [(f"{int(n):,}", f"{size:,}", f"{size / 2**30:,.3f}", f"{found['resumable_prefix_bytes'][n]:,}",
             f"{size / max(int(n), 1) / 1024:,.1f}") for n, size in found["bytes"].items()]  # fmt: skip
    top = ["tokens", "bytes", "GiB", "bytes of a resumable prefix", "KiB per token"]
    lines = [
        pd.DataFrame(rows, columns=top).to_string(index=False), "",
        f"{found['model']}: {found['layers']}; {found['attention']}",
        f"each further token of a long sequence: {found['marginal_bytes_per_token']:,} bytes",
        f"over all {found['tensor_parallel']} ranks of one replica" if found["tensor_parallel"] > 1 else "",
        f"from transformers' defaults: {', '.join(found['assumed'])}" if found["assumed"] else "",
        f"read from {found['source']}",
    ]  # fmt: skip
    return "\n".join([*lines[:2], *filter(None, lines[2:])])


def list_models():
    """Return the table of known models as a DataFrame; the vector of MLA is shown as one KV head.

    `attention` says how many layers have full attention if not all do; bytes per token are a mean then (see `Model`).
    """
    import pandas as pd

    rows = []
    for name in list_names():
        model = load_model(name)
        cache, gib = model.cache, model.cache.sequence_bytes(100_000) / 2**30
        full = sum(one.count for one in cache.layers if one.kind == "full")
        kind = cache.attention + ("" if cache.is_even else f", {full} of {cache.count} full")
        sizes = cache.count, cache.kv_heads, cache.head_size, kind, model.bytes_per_token, gib
        rows.append((name, *sizes, model.source))
    top = ["model", "layers", "KV heads", "head size", "attention"]
    top += ["bytes per token", "GiB for 100,000 tokens", "source"]
    return pd.DataFrame(rows, columns=top)


def list_names():
    """Return the names of the known models."""
    return [row["name"] for row in _read_table()]


def to_gib(blocks, block_size, bytes_per_token):
    """Convert numbers of blocks to GiB (2**30 bytes).

    >>> to_gib([512, 1024], 16, 131072).tolist()
    [1.0, 2.0]
    """
    import numpy as np

    return np.asarray(blocks, dtype=float) * _block_bytes(block_size, bytes_per_token) / 2**30


def to_blocks(gib, block_size, bytes_per_token):
    """Convert GiB (2**30 bytes) to numbers of whole blocks, rounded down.

    >>> to_blocks([1, 1.999], 16, 131072).tolist()
    [512, 1023]
    """
    import numpy as np

    gib = np.asarray(gib, dtype=float)
    if not (np.isfinite(gib) & (gib >= 0)).all():
        raise InputError(f"capacity is {gib} GiB; expected numbers, 0 or more")
    return (gib * 2**30 // _block_bytes(block_size, bytes_per_token)).astype(np.int64)


def _block_bytes(block_size, bytes_per_token):
    return check_positive(block_size, "block size") * check_positive(bytes_per_token, "bytes per token")


def _read_table():
    return read_json(Path(__file__).with_name("models.json"))
