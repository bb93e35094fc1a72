"""Where cached tokens come from and why the others are missed: every prompt token has one origin or one cause.

It reads traces, tokens and replays. It draws nothing, and gives no advice that it has not replayed.
"""
