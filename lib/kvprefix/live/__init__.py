"""Ask a live server, record what it reports, and compare that with the replay.

Only this room sends requests to a server.
"""
