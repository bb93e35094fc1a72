"""The central type, a trace of requests, and what makes one: parameters, arrivals, clock and workload.

It knows no blocks and no caches.
"""
