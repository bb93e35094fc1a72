"""The explorer: widgets that move settings, and redraw one figure. What they move is measured in `studies.explore`.

Nothing here is part of a report.
"""
