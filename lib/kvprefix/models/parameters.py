"""Count a model's parameters from its config: of all, and those that a token uses.

For decoders whose feed-forward part has a gate (Llama, Mistral, Qwen, Gemma, Phi-3 and most since), dense or with
experts, under attention, MLA, Mamba or gated delta nets. Vectors (norms, biases) are left out: below 0.1 %. What a
multimodal model has besides its language model is not counted.
"""

from typing import NamedTuple

from kvprefix.files.paths import InputError
from kvprefix.models.attention import read_attention
from kvprefix.models.fields import find_text, read_optional, read_whole
from kvprefix.models.kinds import list_kinds

_PLAIN = {"gpt2", "gpt_neox", "gpt_bigcode", "falcon", "mpt", "opt", "phi", "starcoder2", "bloom", "gptj", "nemotron"}
_EXPERTS = "num_local_experts", "n_routed_experts", "num_experts"


class Parameters(NamedTuple):
    """Numbers of parameters: all of them, and those that one token uses.

    Of a mixture of experts a token uses some experts, and of the embedding no more than it looks up, so that counts at
    the end of the model only. Of other models all count, as prefill times are published with.
    """

    total: int
    active: int


def count_config(config):
    """Count the parameters of a config.

    Parameters
    ----------
    config : dict
        The content of a `config.json`.

    Returns
    -------
    Parameters

    Raises
    ------
    InputError
        Layers whose parameters are not known here, or a missing field.

    Examples
    --------
    A layer of 4 heads of 2, a feed-forward part of 3 * 8 * 16, an embedding of 10 words and as much at the end.

    >>> config = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 8, "intermediate_size": 16}
    >>> count_config(config | {"vocab_size": 10})
    Parameters(total=800, active=800)
    """
    text, _ = find_text(config)
    if str(text.get("model_type")) in _PLAIN or text.get("hybrid_override_pattern") or text.get("block_configs"):
        raise InputError("how many parameters its layers have is not known from its config")
    hidden = read_whole(text, "hidden_size")
    words = read_whole(text, "vocab_size") * hidden
    total = active = words if text.get("tie_word_embeddings") else 2 * words
    for layer, kind in enumerate(list_kinds(text)):
        mixer = _count_mixer(text, kind, layer, hidden)
        whole, used = _count_feed_forward(text, layer, hidden)
        total, active = total + mixer + whole, active + mixer + used
    if active < total and not text.get("tie_word_embeddings"):
        active -= words
    return Parameters(total, active)


def _count_mixer(text, kind, layer, hidden):
    """Count what mixes tokens: attention or a recurrence, or both."""
    if kind == "both":
        return _count_mixer(text, "full", layer, hidden) + _count_recurrence(text, hidden)
    if kind == "state":
        return _count_recurrence(text, hidden)
    one = read_attention(text, "full" if kind == "none" else kind, layer)
    if one.kind == "MLA":
        return _count_latent(text, hidden)
    queries = 2 if text.get("attn_output_gate") or text.get("model_type") == "qwen3_next" else 1
    return hidden * (one.heads * (queries * one.keys + one.values) + one.kv_heads * (one.keys + one.values))


def _count_latent(text, hidden):
    heads, rank = read_whole(text, "num_attention_heads"), read_whole(text, "kv_lora_rank")
    rope, nope, value = (read_whole(text, name) for name in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    low = read_optional(text, "q_lora_rank")
    queries = low * (hidden + heads * (nope + rope)) if low else hidden * heads * (nope + rope)
    index = read_optional(text, "index_head_dim")
    index = index * ((low or hidden) * read_whole(text, "index_n_heads") + hidden) if index else 0
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden + index


def _count_recurrence(text, hidden):
    """Count a gated delta net, Mamba-1 or Mamba-2."""
    if text.get("linear_num_value_heads"):
        keys = read_whole(text, "linear_num_key_heads") * read_whole(text, "linear_key_head_dim")
        values = read_whole(text, "linear_num_value_heads") * read_whole(text, "linear_value_head_dim")
        return hidden * (2 * keys + 3 * values + 2 * read_whole(text, "linear_num_value_heads"))
    heads = read_optional(text, "mamba_n_heads", "n_mamba_heads")
    if not heads and text.get("mamba_d_state") is None:
        raise InputError("how many parameters its recurrent layers have is not known from its config")
    inner, state = read_whole(text, "mamba_expand", default=2) * hidden, read_whole(text, "mamba_d_state")
    if heads and not text.get("mamba_dt_rank"):
        inner = read_optional(text, "mamba_d_ssm") or inner
        groups = read_whole(text, "mamba_n_groups", "mamba_ngroups", default=1)
        return hidden * (3 * inner + 2 * groups * state + heads)
    rank = text.get("mamba_dt_rank")
    rank = rank if isinstance(rank, int) else -(-hidden // 16)
    return inner * (3 * hidden + 2 * rank + 3 * state)


def _count_feed_forward(text, layer, hidden):
    """Count the feed-forward part of a layer: all of it, and what a token uses."""
    experts = next((read_whole(text, name) for name in _EXPERTS if text.get(name)), 1)
    if experts == 1 or not _has_experts(text, layer):
        wide = read_whole(text, "intermediate_size_mlp", "intermediate_size", default=0)
        wide = wide or read_whole(text, "intermediate_size")
        return 3 * hidden * wide, 3 * hidden * wide
    size = 3 * hidden * read_whole(text, "moe_intermediate_size", "intermediate_size")
    shared = 3 * hidden * read_optional(text, "shared_expert_intermediate_size")
    rest = shared + hidden * experts + size * read_optional(text, "n_shared_experts", "num_shared_experts")
    if text.get("intermediate_size_mlp"):  # Llama-4 has a shared expert besides
        rest += size
    used = read_whole(text, "num_experts_per_tok", "num_experts_per_token", "top_k_experts")
    return size * experts + rest, size * used + rest


def _has_experts(text, layer):
    """Return whether a layer of a mixture of experts has experts."""
    kinds, places, dense = (text.get(key) for key in ("mlp_layer_types", "moe_layers", "mlp_only_layers"))
    if isinstance(kinds, list) and layer < len(kinds):
        return kinds[layer] != "dense"
    if isinstance(places, list) and places:
        return layer in places
    if period := read_optional(text, "expert_layer_period"):
        return layer % period == read_optional(text, "expert_layer_offset")
    if layer < read_optional(text, "first_k_dense_replace") or (isinstance(dense, list) and layer in dense):
        return False
    return (layer + 1) % (read_optional(text, "decoder_sparse_step", "interleave_moe_layer_step") or 1) == 0
