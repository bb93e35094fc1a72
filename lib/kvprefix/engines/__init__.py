"""What vLLM and SGLang do with the same requests, block by block, compiled.

They know nothing of the policies in `cache`.
"""
