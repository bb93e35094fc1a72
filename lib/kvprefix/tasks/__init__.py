"""Run functions here, on processes of this machine or on a Dask cluster, with the same results in the same order.

It does not know what the functions compute.
"""
