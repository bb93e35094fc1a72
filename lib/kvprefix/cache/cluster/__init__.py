"""Replicas with a cache each, the routers that spread requests over them, and how long prompts wait there.

It knows no files and no tables.
"""
