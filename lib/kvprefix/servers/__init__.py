"""What a chat server makes of a request's body: the messages, tools and settings that its chat template renders.

It knows no tokenizer and renders nothing. Of a template it needs a few plain facts, see `prompt.TemplateFacts`.
"""
