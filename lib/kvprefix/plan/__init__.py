"""What a plan of replicas, routers and memory comes to on given traffic, and which one to take.

It puts together cards, engines' replays, routers, tiers, queues and prices. It makes no tables that are kept, and knows
no files.
"""
