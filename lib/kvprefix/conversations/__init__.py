"""Turn raw chat records into conversations, and count every repair and every skipped record.

It knows no tokens and no times.
"""
