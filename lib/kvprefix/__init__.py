"""Measure how much of an LLM workload's KV cache can be shared between requests.

``import kvprefix as kp`` offers the names of `contents`, each imported when it is first used.
"""

from kvprefix.contents import NAMES, load

__version__ = "0.1.0"
__all__ = sorted(NAMES)


def __getattr__(name):
    if name not in NAMES:
        raise AttributeError(f"kvprefix has no {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value = load(name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
