"""What to change so that prompts share more: where they part, what the parts hold, and what moving them wins.

Nothing here is called recoverable that was not rendered and replayed again. It reads no file and keeps no table.
"""
