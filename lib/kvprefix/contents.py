"""The table of contents: every public name, where it lives, and what it is. The reference page is made of it.

A name is imported when it is first used, so that ``import kvprefix`` is quick.
"""

from importlib import import_module

GROUPS = {
    "Read": {
        "read_conversations": ("conversations.chats", "Chats of a file, or of messages in memory"),
        "Conversations": ("conversations.chats", "What `read_conversations` gives, with what was repaired or skipped"),
        "read_trace": ("formats.read", "A trace of any form that is known: tokens, messages or block ids"),
        "convert": ("formats.convert", "Write a trace in another tool's form"),
    },
    "Make a trace": {
        "tokenize": ("traces.workload", "Tokenise chats with a tokenizer's own chat template, once"),
        "Workload": ("traces.workload", "Tokenised chats, before any arrival time"),
        "make_trace_of": ("traces.trace", "A trace of plain lists of token ids"),
        "Trace": ("traces.trace", "Requests in arrival order, with their tokens"),
        "PrefixTrace": ("blocks.prefix_trace", "A trace as a cache of blocks sees it"),
        "make_prefix_trace": ("blocks.prefix_trace", "What `Trace.blocks` does"),
        "write_trace": ("traces.parquet", "Write a trace with its tokens as Parquet"),
    },
    "Time": {
        "Poisson": ("traces.arrivals", "Conversations start at random, independently"),
        "Gamma": ("traces.arrivals", "Bursts: gamma distributed times between starts"),
        "Weibull": ("traces.arrivals", "Bursts: Weibull distributed times between starts"),
        "Day": ("traces.arrivals", "A day's rates, hour by hour"),
        "Clients": ("traces.arrivals", "Few clients carry most of the rate"),
        "Stamps": ("traces.arrivals", "Starts as a file has them"),
        "Causal": ("traces.clock", "The next turn follows the reply and a think time"),
        "BackToBack": ("traces.clock", "The next turn follows the reply at once"),
        "AtOnce": ("traces.clock", "All turns come at the start: for comparison only"),
    },
    "Share": {
        "share": ("blocks.sharing", "What an unbounded cache would share"),
        "Sharing": ("blocks.sharing", "What `share` gives"),
    },
    "Bound": {
        "Memory": ("models.memory", "How many blocks fit into a model's KV cache"),
        "lru_curve": ("cache.curve", "The LRU hit rate at every capacity, in one pass"),
        "Curve": ("cache.curve", "What `lru_curve` gives"),
        "PrefixCache": ("cache.replay", "A cache of a fixed number of blocks under an eviction policy"),
        "policy": ("cache.policies", "Make a score of your own an eviction policy"),
        "POLICIES": ("cache.policies", "The eviction policies by name"),
        "sweep": ("studies.sweep", "Rate policies at capacities"),
    },
    "Engines": {
        "VLLM": ("engines.vllm", "vLLM's prefix cache, block by block"),
        "VLLMHybrid": ("engines.vllm_hybrid", "The same for models with several groups of layers"),
        "read_groups": ("engines.group_files", "The groups of layers of a model"),
        "SGLang": ("engines.sglang", "SGLang's radix cache, page by page"),
        "Overlap": ("engines.overlap", "Requests that run at the same time"),
        "Replayed": ("stats.replayed", "What each request hit in a replay"),
    },
    "Plan": {
        "load_card": ("models.cards", "Memory, speed and price of a GPU"),
        "count_gpu_blocks": ("models.pool", "How many KV blocks a card leaves for a model"),
        "Setup": ("plan.setup", "Model, cards, choices, aim and assumptions of a plan"),
        "make_plans": ("studies.plan", "Measure replicas, routers and DRAM on a workload, and choose"),
    },
    "Judge": {
        "compare": ("stats.compare", "Lay results of the same requests beside each other"),
        "verify": ("studies.verify", "Check this library against recorded answers"),
        "InputError": ("files.paths", "A mistake in what was given, with what would be right"),
    },
}
NAMES = {name: entry for group in GROUPS.values() for name, entry in group.items()}
_DRAWN = {
    "draw:Sharing": "report.plots.results:draw_sharing",
    "draw:Curve": "report.plots.results:draw_curve",
    "draw:Sweep": "report.plots.results:draw_sweep",
    "draw:Comparison": "report.plots.results:draw_comparison",
}


def load(name):
    """Return what a public name stands for, or what draws a kind of result (`draw:Curve`)."""
    place = _DRAWN.get(name) or f"{NAMES[name][0]}:{name}"
    module, attribute = place.split(":")
    return getattr(import_module(f"kvprefix.{module}"), attribute)
