"""One module per form of chat traffic: how it is told by content, and how calls and dialogs are made of it.

It makes no prompts: bodies and messages stay as they were given.
"""
