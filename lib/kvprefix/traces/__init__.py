"""The central type, a trace of requests, and what makes one: parameters, arrivals, the clock, the workload.

It knows no blocks and no caches.
"""
