"""Run functions here, on processes of this machine or on a Dask cluster, with the same results in the same order.

It knows nothing of what the functions compute.
"""
