"""A cache of a fixed number of blocks: eviction policies, their replay, whole curves, approximations.

It knows no serving engine; those are in `engines`.
"""
