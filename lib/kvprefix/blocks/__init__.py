"""Identify prefix blocks, list them as a cache accesses them, and count what an unbounded cache would share.

It knows no capacity and no eviction.
"""
