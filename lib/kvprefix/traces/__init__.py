"""The central type, a trace of requests, and what makes one: the parameters' table, arrivals, clock and workload.

It knows no blocks and no caches.
"""
