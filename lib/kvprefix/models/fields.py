"""Read a model's `config.json`: the part of the language model, whole numbers, number types.

Fields that a file leaves out have the value that transformers gives them, as for an engine that loads the model.
"""

import json

from kvprefix.files.checks import check_choice, check_whole
from kvprefix.files.extras import import_transformers
from kvprefix.files.paths import InputError, check_input_file, explain_os_errors

DTYPE_BYTES = {
    "float32": 4, "bfloat16": 2, "float16": 2, "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1,
}  # fmt: skip
_PARTS = ("thinker_config", "text_config", "llm_config", "language_config")
_SIZES = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim", "v_head_dim",
    "layer_types", "layers_block_type", "sliding_window", "attention_chunk_size", "num_kv_shared_layers",
    "kv_lora_rank", "qk_rope_head_dim", "index_head_dim",
)  # fmt: skip
_KV_FIELDS = "kv_cache_scheme", "kv_cache_quant_algo"  # compressed-tensors | ModelOpt
LAYERS = "num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_transformer_layers"
MOST_LAYERS = 10_000
# Fields from which transformers makes a kind per layer, without looking at what they hold.
_NUMBERS = "full_attention_interval", "attn_layer_period", "sliding_window_pattern"
_LISTS = "hybrid_layer_ids", "hybrid_layer_pattern", "attn_layer_indices", "full_attn_idxs"


class MissingError(InputError):
    """A field that a config does not have."""


def read_json(path):
    """Return the content of a JSON file."""
    check_input_file(path)
    with explain_os_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); expected a model's config.json") from error


def find_text(config):
    """Return the fields of a config's language model, and those of them that transformers' defaults fill in.

    Returns
    -------
    (dict, tuple of str)
        A field that is null is absent.
    """
    text, parent, name = config, {}, None
    while inner := next((part for part in _PARTS if isinstance(text, dict) and text.get(part)), None):
        text, parent, name = text[inner], text, inner
    if not isinstance(text, dict):
        raise InputError("a model's config is not a JSON object; expected what a config.json holds")
    given = {key: value for key, value in text.items() if value is not None}
    filled = {key: value for key, value in _complete(text, parent, name).items() if value is not None}
    return {**filled, **given}, tuple(key for key in _SIZES if key in filled and key not in given)


def _complete(text, parent, part):
    """Return a text config as transformers loads it; empty if it does not know the model, or cannot read the fields."""
    if not all(type(text.get(key, 1)) is int and 0 < text.get(key, 1) <= MOST_LAYERS for key in LAYERS):
        return {}  # it would make a list of so many layers
    if not (all(_is_rhythm(text.get(key)) for key in _NUMBERS) and all(_is_list(text.get(key)) for key in _LISTS)):
        return {}  # named by who reads it
    names = [one for one in (text.get("model_type"), parent.get("model_type")) if isinstance(one, str)]
    known = import_transformers().CONFIG_MAPPING if names else {}
    if not names or names[0] not in known:
        return {}
    kind = known[names[0]]
    if part and "model_type" not in text:
        kind = kind.sub_configs.get(part)
    if not isinstance(kind, type):
        return {}
    try:
        return kind.from_dict(text).to_dict()
    except Exception:  # of many kinds; a field that is wrong is named by who reads it
        return {}


def _is_rhythm(value):
    return value is None or isinstance(value, str | list) or type(value) is int and value > 0


def _is_list(value):
    return value is None or isinstance(value, list)


def find_dtype(config, text):
    """Return the number type of a model's weights, bfloat16 if the config has none."""
    own = (part.get(key) for part in (text, config) for key in ("dtype", "torch_dtype"))
    return next(filter(None, own), "bfloat16")


def find_kv_dtype(config, text):
    """Return the number type of keys and values: the one that the checkpoint is quantised for, else the weights'.

    >>> find_kv_dtype({"quantization_config": {"kv_cache_scheme": {"type": "float", "num_bits": 8}}}, {})
    'fp8'
    >>> find_kv_dtype({"torch_dtype": "float16", "quantization_config": {"quant_method": "fp8"}}, {})
    'float16'
    """
    found = [part.get("quantization_config") for part in (config, text)]
    given = [(key, one[key]) for one in found if isinstance(one, dict) for key in _KV_FIELDS if one.get(key)]
    if not given:
        return find_dtype(config, text)
    field, value = given[0]
    kind = (value.get("type"), value.get("num_bits")) if isinstance(value, dict) else str(value).lower()
    if kind not in (("float", 8), "fp8"):
        raise InputError(f"{field} is {value!r}; expected FP8, or a number type of keys and values that is given")
    return "fp8"


def dtype_bytes(dtype):
    """Return the bytes of a number.

    >>> dtype_bytes("torch.bfloat16"), dtype_bytes("fp8")
    (2, 1)
    """
    return DTYPE_BYTES[check_choice(str(dtype).removeprefix("torch."), "dtype", DTYPE_BYTES, "expected one of {}")]


def read_whole(config, *names, default=None):
    """Return the first of these fields that is set, as a whole number above 0."""
    name = next((name for name in names if config.get(name) is not None), names[0])
    value = config.get(name)
    return default if value is None and default is not None else check_positive(value, name)


def read_optional(config, *names):
    """Return the first of these fields that is set as a whole number, 0 or more; 0 without them.

    >>> read_optional({"a": None, "b": 3}, "a", "b"), read_optional({}, "a")
    (3, 0)
    """
    name = next((name for name in names if config.get(name)), None)
    return check_whole(config[name], name, "a whole number, 0 or more (below 2**31)", least=0) if name else 0


def check_positive(value, name):
    """Return a whole number above 0."""
    expected = "a whole number, 1 or more (below 2**31)"
    if value is None:
        raise MissingError(f"{name} is missing; expected {expected}")
    return check_whole(value, name, expected)
