"""Check what models take: bytes of KV cache, prefill times that were published, and queues."""

import json

from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.models.cards import load_card
from kvprefix.models.memory import load_model
from kvprefix.models.prefill import break_even_bandwidth, implied_mfu
from kvprefix.stats.queue import mean_wait
from kvprefix.studies.anchors import equal

_MEASURED = ((5000, "fp8", "H100-80G"), (500, "fp8", "H100-80G"), (10_000, "bf16", "GH200-96G"))
_BREAK_EVEN = "break_even_GiB_per_s (mfu 0.5, whole prompt cached)"


def check_models(folder):
    """Yield an anchor for each model's bytes, each published time and the bandwidths at which loading pays."""
    for name, row in _read(folder, "kvbytes.json")["models"].items():
        model, _, dtype = name.partition(" ")
        cache, lengths = load_model(model, dtype=dtype or None).cache, [key for key in row if key.isdigit()]
        ours, theirs = {n: cache.sequence_bytes(int(n)) for n in lengths}, {n: row[n] for n in lengths}
        yield equal(f"bytes of {name} at {len(lengths)} lengths", ours, theirs)
    times, llama = _read(folder, "ttft.json"), load_model("Llama-3.1-70B")
    for one, (tokens, dtype, card) in zip(times["points"], _MEASURED, strict=True):
        mfu = implied_mfu(one["TTFT_s"], 0, tokens, llama, load_card(card), 2, dtype=dtype)
        yield equal(f"{one['what']}: implied mfu {mfu:.3f}", round(mfu, 3), one["implied_mfu_if_t0=0"])
    for name, rows in times[_BREAK_EVEN].items():
        model, gpus = name.rpartition(" ")[0], int(name.rpartition(" ")[2].removesuffix("xH100"))
        given = load_model(model), load_card("H100-80G"), gpus
        ours = {n: round(break_even_bandwidth(int(n), *given) / 2**30, 3) for n in rows}
        yield equal(f"GiB/s at which loading pays, {name}", ours, {n: row["GiB/s"] for n, row in rows.items()})
    for name, row in _read(folder, "queue.json")["rows"].items():
        if name.startswith("M/D/1"):
            yield equal(f"mean wait, {name}", round(mean_wait(float(name.split("=")[1]), 1.0), 4), row["pk"])


def _read(folder, name):
    path = folder / name
    with explain_os_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is cut or damaged ({error}); expected it as the project has it") from error
