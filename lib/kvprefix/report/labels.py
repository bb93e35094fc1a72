"""What origins and causes are called: in figures and tables, and within sentences."""

UNCACHED = "uncached"
LABELS = {
    "template": "chat template", "system_prompt": "system message", "own_turns": "own earlier turns",
    "duplicate": "equal conversation", "other_conversation": "other conversation", UNCACHED: "not cached",
    "hit": "hit", "routing": "on another replica", "policy": "the optimum would keep", "capacity": "evicted",
    "sub_block_inside": "inside a block", "sub_block_tail": "end of a known prompt", "isolation": "other salt",
    "generated_not_cached": "reply not cached", "last_sampled_token": "last sampled token",
    "template_divergence": "rendered otherwise", "last_token": "last token", "cold": "new",
    "first_seen": "first seen",
}  # fmt: skip
_SAID = {  # after a share of the prompt tokens
    "template": "from the chat template", "system_prompt": "from system messages",
    "own_turns": "from own earlier turns",
    "duplicate": "from equal conversations", "other_conversation": "from other conversations",
    "routing": "lie on another replica", "policy": "would be hit by the optimum, which knows the future",
    "capacity": "were evicted, and the optimum could not keep them either",
    "sub_block_inside": "share only part of a block with an earlier prompt",
    "sub_block_tail": "end a prompt that was there before",
    "isolation": "are known under another cache salt alone",
    "generated_not_cached": "were generated before, but only prompts are cached",
    "last_sampled_token": "are the last sampled token of a reply, whose KV is never computed",
    "template_divergence": "are of known messages whose tokens differ now",
    "last_token": "are the last token, which is always computed", "cold": "are new",
    "first_seen": "were in no whole block before",
}  # fmt: skip


def say_part(part):
    """Return what a share of the prompt tokens is, as a sentence goes on.

    >>> say_part("cold"), say_part("own_turns")
    ('are new', 'from own earlier turns')
    """
    return _SAID[part]


def label_part(part):
    """Return the label of a part.

    >>> label_part("capacity")
    'evicted'
    """
    return LABELS[part]
