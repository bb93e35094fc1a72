"""What goes into a server's rules and what comes out: facts about a chat template, a prompt, a refusal."""

from typing import NamedTuple


class Refused(Exception):
    """A server refuses a body: (reason, what is wrong). The reason is what bodies are counted by."""

    @property
    def reason(self):
        return self.args[0]

    def __str__(self):
        return f"{self.args[0]}: {self.args[1]}"


class TemplateFacts(NamedTuple):
    """What a server reads off a chat template.

    Attributes
    ----------
    content_format : str
        `"openai"` if the template goes through the parts of a message's content, `"string"` if it wants a text.
    knows_developer : bool
        Whether its text holds the role `developer`.
    refuses_late_system : bool
        Whether it raises an error on a system message that is not the first.
    variables : frozenset of str
        The variables that it reads.
    sglang_format : str
        What SGLang takes `content_format` to be.
    disabled_effort : str
        The reasoning effort of a request that disables thinking: `"none"`, or `"low"` if the template refuses `none`
        or renders it like another effort.
    """

    content_format: str = "string"
    knows_developer: bool = False
    refuses_late_system: bool = False
    variables: frozenset = frozenset()
    sglang_format: str = "string"
    disabled_effort: str = "none"


class Prompt(NamedTuple):
    """What a template renders, as the server gives it.

    Attributes
    ----------
    messages : list of dict
        Keys in the server's order; arguments of tool calls are objects.
    tools : list of dict or None
    settings : dict
        Other variables of the template: `documents`, and those of `chat_template_kwargs` that it reads.
    generation : bool
        Whether the start of a reply follows the messages (`add_generation_prompt`).
    continues : bool
        Whether the last message is left open (`continue_final_message`).
    adds_special : bool
        Whether the tokenizer adds its own special tokens to those of the template.
    """

    messages: list
    tools: list | None = None
    settings: dict = {}
    generation: bool = True
    continues: bool = False
    adds_special: bool = False


class Memo:
    """What functions made of messages, by the message's identity: a session's calls repeat them, and none changes.

    Its results are shared by prompts, so they must not be changed.
    """

    def __init__(self):
        self._known = {}

    def apply(self, function, message, *more):
        """Return ``function(message, *more)``; `more` must be the same in all calls of a memo."""
        key = function, id(message)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = message, function(message, *more)  # it keeps the message, and so its identity
        return found[1]
