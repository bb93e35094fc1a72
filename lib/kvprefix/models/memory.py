"""Compute the bytes of KV cache per token of a model, so that blocks can be shown as GiB.

The model is a Hugging Face `config.json` or one of a table of known models. A model whose cache does not grow by the
same amount with every token (sliding windows, recurrent layers) is refused. Weights, activations and what an engine
keeps beside its blocks are not counted.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kvprefix.files.checks import check_choice, check_whole
from kvprefix.files.paths import InputError, check_input_file, explain_os_errors, resolve_input
from kvprefix.files.shown import Shown
from kvprefix.files.words import guess

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1}

# Fields of models with layers that cache nothing per token, less, or something else.
_UNEVEN = re.compile(
    r"mamba_|ssm_|state_size$|lru_|rwkv|recurrent_|block_types$|layers_block_type$|hybrid_|attn_layer_|attn_type_list$"
    r"|linear_(attn|key|num|value)|full_attn_idxs$|full_attention_interval$|attention_chunk_size$|compress_ratios$"
    r"|index_head_dim$|conv_L_cache$|cross_attention_layers$|is_encoder_decoder$|num_kv_shared_layers$|use_cla$"
    r"|num_key_value_heads_per_layer$|block_configs$"
)


@dataclass(frozen=True)
class Model:
    """A model's bytes of KV cache per token, over all ranks of one replica, and their source (a file or an address)."""

    name: str
    bytes_per_token: int
    source: str


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
        size = self.model.bytes_per_token
        return {
            "what": f"KV cache of {self.model.name}",
            "a token takes": f"{size:,} bytes, so {2**30 // size:,} tokens fit into a GiB",
            "read from": self.model.source,
            "not counted": "weights, activations, what an engine keeps beside its blocks",
        }


class _Layout(NamedTuple):
    layers: int
    kv_heads: int
    head_size: int
    attention: str


def kv_bytes_per_token(config, *, dtype=None, tensor_parallel=1):
    """Compute the bytes of KV cache that one token takes, over all ranks of one replica.

    Parameters
    ----------
    config : dict
        The content of a model's `config.json`. Of a multimodal model, its `text_config` counts.
    dtype : str, optional
        Number type of the cache, a key of `DTYPE_BYTES`. By default the config's type of weights, else bfloat16.
    tensor_parallel : int
        Ranks that share a replica. They divide the KV heads; with more ranks than KV heads, ranks hold copies.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InputError
        If a field is missing or wrong, the heads cannot be divided, or the cache is not the same for every token.

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
    text = _find_text(config)
    layout, ranks = _read_layout(text), _check_whole(tensor_parallel, "tensor_parallel")
    if layout.kv_heads % ranks and ranks % layout.kv_heads:
        raise InputError(f"tensor_parallel is {ranks}; expected a divisor or a multiple of {layout.kv_heads} KV heads")
    own = (part.get(key) for part in (text, config) for key in ("dtype", "torch_dtype"))
    dtype = str(dtype or next(filter(None, own), "bfloat16")).removeprefix("torch.")
    check_choice(dtype, "dtype", DTYPE_BYTES, "expected one of {}")
    vectors = 1 if layout.attention == "MLA" else 2
    return vectors * layout.layers * max(layout.kv_heads, ranks) * layout.head_size * DTYPE_BYTES[dtype]


def load_model(name, *, dtype=None, tensor_parallel=1):
    """Find a model by its name in the table (case does not matter), or read a `config.json` or its folder.

    >>> load_model("llama-3.1-8b").bytes_per_token
    131072
    """
    table, path = _read_table(), resolve_input(name)
    row = next((row for row in table if row["name"].lower() == str(name).lower()), None)
    if row is None and not path.exists():
        names = [row["name"] for row in table]
        expected = f"expected a config.json, its folder, or one of {', '.join(names)}{guess(name, names)}"
        raise InputError(f"model {str(name)!r} is not known; {expected}")
    if row is None:
        path = path / "config.json" if path.is_dir() else path
        label = path.resolve().parent.name if path.name == "config.json" else path.stem
        row = {"name": label, "source": str(path), "config": _read_json(path)}
    try:
        size = kv_bytes_per_token(row["config"], dtype=dtype, tensor_parallel=tensor_parallel)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return Model(row["name"], size, row["source"])


def list_models():
    """Return the table of known models as a DataFrame; the vector of MLA is shown as one KV head."""
    import pandas as pd

    rows = []
    for row in _read_table():
        layout, size = _read_layout(row["config"]), kv_bytes_per_token(row["config"])
        rows.append((row["name"], *layout, size, size * 100_000 / 2**30, row["source"]))
    top = ["model", "layers", "KV heads", "head size", "attention"]
    top += ["bytes per token", "GiB for 100,000 tokens", "source"]
    return pd.DataFrame(rows, columns=top)


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
    return _check_whole(block_size, "block size") * _check_whole(bytes_per_token, "bytes per token")


def _find_text(config):
    """Return the part of a config that describes the language model."""
    text = config.get("text_config") or config if isinstance(config, dict) else None
    if not isinstance(text, dict):
        raise InputError("a model's config is not a JSON object; expected what a config.json holds")
    return text


def _read_layout(config):
    """Read what is cached per token: layers, KV heads, numbers per head, and the kind of attention."""
    _check_even(config)
    layers = _read_whole(config, "num_hidden_layers", "n_layer")
    if config.get("kv_lora_rank") is not None:
        return _Layout(layers, 1, _read_whole(config, "kv_lora_rank") + _read_whole(config, "qk_rope_head_dim"), "MLA")
    heads, kv_heads = _read_whole(config, "num_attention_heads", "n_head"), 1
    if not config.get("multi_query") or config.get("new_decoder_architecture"):
        names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
        kv_heads = _read_whole(config, *names, default=heads)
    if heads % kv_heads:
        raise InputError(f"num_key_value_heads is {kv_heads}; expected a divisor of the {heads} attention heads")
    size = _read_whole(config, "head_dim", "kv_channels", default=0)
    if not size:
        size, rest = divmod(hidden := _read_whole(config, "hidden_size", "n_embd"), heads)
        if rest:
            raise InputError(f"hidden_size is {hidden}; expected a multiple of the {heads} heads, or head_dim besides")
    if config.get("v_head_dim") not in (None, 0, size):
        raise InputError(f"v_head_dim is {config['v_head_dim']!r}; expected keys and values of one size ({size})")
    return _Layout(layers, kv_heads, size, "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA")


def _check_even(config):
    """Raise InputError if not every layer caches the same for every token."""
    kinds = config.get("layer_types") or []
    other = {str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds])} - {"full_attention"}
    found = [f"layer_types holds {', '.join(sorted(other))}"] if other else []
    if config.get("sliding_window") is not None and config.get("use_sliding_window") is not False:
        found.append(f"sliding_window is {config['sliding_window']!r}")
    found += [f"{key} is set" for key, value in config.items() if value and _UNEVEN.match(key)]
    if found:
        raise InputError(
            f"{found[0]}: not every layer caches the same for every token, so no number of bytes per token is right; "
            "expected a model with full attention in every layer"
        )


def _read_whole(config, *names, default=None):
    """Return the first of these fields that is set, as a whole number above 0."""
    name = next((name for name in names if config.get(name) is not None), names[0])
    value = config.get(name)
    return default if value is None and default is not None else _check_whole(value, name)


def _check_whole(value, name):
    shown = "missing" if value is None else None
    return check_whole(value, name, "a whole number, 1 or more (below 2**31)", shown=shown)


def _read_table():
    return _read_json(Path(__file__).with_name("models.json"))


def _read_json(path):
    check_input_file(path)
    with explain_os_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); expected a model's config.json") from error
