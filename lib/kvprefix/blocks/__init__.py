"""The identity of prefix blocks, what a cache sees of them, and what an unbounded cache would share.

No capacity and no eviction here.
"""
