"""Judge sentences by their numbers: each stands beside the word that it belongs to, other words may change."""

import re

_NUMBER = re.compile(r"[-+]?[0-9][0-9,]*(?:\.[0-9]+)?(?: %)?")


def says(text, pattern):
    """Say whether a text holds the pieces of `pattern`, in order, with no other number between them; `~` parts them.

    A number is found as a whole only: neither as a part of a longer one nor behind a sign.

    >>> says("of 12,345 requests **41.2 %** are cached", "12,345 ~ requests ~ 41.2 % ~ cached")
    True
    >>> says("141.2 % are cached", "41.2 % ~ cached"), says("-3.1 points", "3.1 ~ points")
    (False, False)
    >>> says("2 requests of 7 wait", "2 ~ wait")
    False
    """
    pieces = [_guard(piece.strip()) for piece in pattern.split("~")]
    return bool(re.search(r"[^0-9]{0,200}?".join(pieces), re.sub(r"[*`]", "", text)))


def _guard(piece):
    if not _NUMBER.fullmatch(piece):
        return re.escape(piece)
    behind = r"(?![0-9]|[.,][0-9])" if piece[-1].isdigit() else ""
    return rf"(?<![-+.,0-9]){re.escape(piece)}{behind}"


def missing(text, *patterns):
    """Return the patterns that a text does not say, and the text if there are any: to be compared with []."""
    left = [pattern for pattern in patterns if not says(text, pattern)]
    return [*left, text] if left else []


def said_of(measure, *arguments, **options):
    """Return what is said of the facts that a function returns: `facts_NAME` is said by the template NAME."""
    from kvprefix.report.words import say

    name, facts = measure.__name__.removeprefix("facts_"), measure(*arguments, **options)
    return say(f"{name}.txt" if name == "load" else f"{name}.md", facts)


def summarised(first, step):
    """Return a summary whose ten values are all different: the mean is `first`, each next one `step` more.

    >>> summarised(1, 1)["median"], summarised(1, 1)["p99"]
    (6, 9)
    """
    names = ["mean", "std", "min", "p5", "p25", "median", "p75", "p95", "p99", "max"]
    return {name: round(first + k * step, 9) for k, name in enumerate(names)}


def make_stats():
    """Return statistics of both modes in which no two rates are alike."""
    from kvprefix.traces.parameters import Parameters

    dataset = {
        "name": "talk.json", "bytes": 7_654_321, "sha256": "0123456789abcdef" * 4, "records_read": 1_500,
        "skipped": {"no_messages": 140, "unknown_speaker": 26}, "conversations": 1_334, "exact_duplicates": 23,
        "repaired": {"blank_messages_dropped": 31, "leading_assistant_dropped": 0, "ids_made_unique": 42},
        "first_skipped": {"no_messages": "record 3: a", "unknown_speaker": "record 5: b"}, "cut_at_byte": 7_654_300,
        "read_to_end": True,
    }  # fmt: skip
    parameters = {
        **Parameters(block_size=32, seed=7, arrival_rate=3.5, max_conversations=1_400).as_dict(),
        "data_sha256": "d" * 64, "tokenizer_sha256": "fedcba9876543210" * 4, "tokenizer_has_template": True,
        "versions": {"python": "3.11.9", "numpy": "9.8.7"},
    }  # fmt: skip
    multi = {
        "mode": "multi_turn", "parameters": parameters, "dataset": dataset, "requests": 2_345,
        "requests_without_reply": 17, "early_turns": 19, "duration_s": 9_876.5,
        "prompt_tokens": {"total": 1_000_000, **summarised(1_000, 111)},
        "output_tokens": {"total": 54_321, **summarised(200, 11)},
        "sharing_fraction": summarised(0.401, 0.011), "block_hit_count": summarised(2.31, 0.07),
        "reuse_gap_s": summarised(61, 7), "reuse_gap_s_request_weighted": summarised(31, 3),
        "token_hit_rate": 0.366, "block_reuse_rate": 0.577, "blocks_reused_fraction": 0.2,
        "blocks": {"accesses": 11_300, "distinct": 5_000},
        "with_generated_tokens": {"token_hit_rate": 0.391, "sharing_fraction": summarised(0.521, 0.011)},
        "without_template_tokens": {
            "prompt_tokens": {"total": 912_000, **summarised(900, 13)}, "token_hit_rate": 0.352,
            "block_reuse_rate": 0.543, "sharing_fraction": summarised(0.331, 0.011),
        },
        "intervals": {
            "sharing_fraction.mean": [0.390, 0.414], "sharing_fraction.median": [0.440, 0.474],
            "token_hit_rate": [0.351, 0.379], "block_reuse_rate": [0.560, 0.596],
            "blocks_reused_fraction": [0.190, 0.212], "block_hit_count.mean": [2.20, 2.44],
            "with_generated_tokens.token_hit_rate": [0.380, 0.406],
            "with_generated_tokens.sharing_fraction.mean": [0.510, 0.540],
            "without_template_tokens.token_hit_rate": [0.340, 0.372],
            "without_template_tokens.sharing_fraction.mean": [0.320, 0.358],
        },
    }  # fmt: skip
    single = {
        **multi, "mode": "single_turn", "requests": 1_334, "requests_without_reply": 8, "early_turns": 0,
        "prompt_tokens": {"total": 200_000, **summarised(150, 9)},
        "output_tokens": {"total": 33_333, **summarised(210, 12)},
        "sharing_fraction": summarised(0.121, 0.011), "block_hit_count": summarised(1.11, 0.03),
        "reuse_gap_s": summarised(11, 2), "reuse_gap_s_request_weighted": summarised(5, 1.5),
        "token_hit_rate": 0.087, "block_reuse_rate": 0.094, "blocks_reused_fraction": 0.016,
        "blocks": {"accesses": 4_200, "distinct": 3_800},
        "with_generated_tokens": {"token_hit_rate": 0.089, "sharing_fraction": summarised(0.124, 0.011)},
        "without_template_tokens": {
            "prompt_tokens": {"total": 166_000, **summarised(120, 7)}, "token_hit_rate": 0.027,
            "block_reuse_rate": 0.033, "sharing_fraction": summarised(0.014, 0.011),
        },
        "intervals": {"token_hit_rate": [0.081, 0.095]},
    }  # fmt: skip
    return {"single_turn": single, "multi_turn": multi}
