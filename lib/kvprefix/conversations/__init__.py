"""Raw records of chats become conversations, with every repair and every skipped record counted.

No tokens and no times here.
"""
