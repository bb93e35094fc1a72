"""Bytes of a model's weights: known, counted in the files beside a config, or parameters times bytes of a number."""

from pathlib import Path

from kvprefix.files.checks import check_number, check_type
from kvprefix.files.paths import InputError
from kvprefix.models.fields import dtype_bytes, find_dtype, find_kv_dtype, find_text, read_json
from kvprefix.models.parameters import count_config


def count_parameters(model, given=None, *, active=False):
    """Return how many parameters a model has.

    Parameters
    ----------
    model : memory.Model
    given : float, optional
        Instead of what is known.
    active : bool
        Of a mixture of experts, those that a token uses.

    Raises
    ------
    InputError
        Neither given nor known, and not to be counted from the config.

    Notes
    -----
    What the table of models says, else what its config adds up to (`parameters.count_config`).
    """
    if given is not None:
        return check_number(given, "parameters", "a number above 0", least=1)
    own = model.row.get("active_parameters") if active else None
    if known := own or model.row.get("parameters"):
        return known
    try:
        return getattr(count_config(model.row["config"]), "active" if active else "total")
    except InputError as error:
        raise InputError(
            f"{model.source}: how many parameters it has is not known ({error}); expected their number "
            "(of a mixture of experts: of all of them for memory, of those that a token uses for time)"
        ) from error


def weights_dtype(model, dtype=None):
    """Return the number type in which a model's weights are multiplied: the given one, a known one, the config's.

    Weights that are quantised to fp8 are multiplied as such, all others in the config's type.
    """
    own = model.row.get("weights_dtype") or ("fp8" if _find_quantised(model) == "fp8" else None)
    config = model.row["config"]
    return str(dtype or own or find_dtype(config, find_text(config)[0])).removeprefix("torch.")


def cache_dtype(model):
    """Return the number type of keys and values that a model's config says, None if it is the weights'."""
    config = model.row["config"]
    text, _ = find_text(config)
    found = find_kv_dtype(config, text)
    return None if found == find_dtype(config, text) else found


def _find_quantised(model):
    """Return how a config says that the weights are quantised, None if they are not."""
    config = model.row["config"]
    found = config.get("quantization_config") or find_text(config)[0].get("quantization_config")
    return found.get("quant_method") if isinstance(found, dict) else found


def weights_bytes(model, *, dtype=None, parameters=None):
    """Return the bytes of a model's weights.

    Parameters
    ----------
    model : memory.Model
    dtype : str, optional
        Number type, a key of `fields.DTYPE_BYTES`; by default the one that the model is published in.
    parameters : float, optional
        Their number, instead of what is known.

    Notes
    -----
    If neither is given: what the model's files take (`model.safetensors.index.json` beside its config, or the table's
    number for a model whose layers have different types), else parameters x bytes of a number.
    """
    if dtype is None and parameters is None:
        found = model.row.get("weights_bytes") or _read_index(Path(model.source))
        if found:
            return int(check_number(found, "total_size", "a number of bytes", least=1))
    if dtype is None and (method := _find_quantised(model)) not in (None, "fp8"):
        raise InputError(f"{model.source}: weights are quantised by {method}; expected their number type, such as fp8")
    return int(count_parameters(model, parameters) * dtype_bytes(weights_dtype(model, dtype)))


def _read_index(config):
    """Return the bytes of the weights that lie beside a config file, as their index says; None without one."""
    path = config.parent / "model.safetensors.index.json"
    if not (config.is_file() and path.is_file()):
        return None
    return check_type(read_json(path), dict, str(path)).get("metadata", {}).get("total_size")
