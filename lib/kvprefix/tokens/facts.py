"""Read off a chat template what a server reads off it: how it wants content, which roles and variables it knows.

Source: vLLM 0.32, `renderers/hf.py` (`_detect_content_format`, `_detect_developer_role_support`,
`_resolve_chat_template_kwargs`) and `entrypoints/anthropic/serving.py` (the two trial renderings), if not said.
"""

import functools
import json

import jinja2.meta
from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kvprefix.servers.chat import EFFORTS
from kvprefix.servers.prompt import Prompt, TemplateFacts
from kvprefix.tokens.chat import Chat, TemplateRefusal, compile_template
from kvprefix.tokens.render import render_prompt


def find_facts(chat):
    """Return the TemplateFacts of a Chat; those of a template without variables if its class renders in its own way."""
    if chat.source is None:
        return TemplateFacts()
    return _find_facts(chat.source, json.dumps(chat.special_tokens, default=str))


@functools.lru_cache(maxsize=16)
def _find_facts(source, special_tokens):
    tree = compile_template(source).environment.parse(source)
    facts = TemplateFacts(
        _find_content_format(tree),
        any(f"{quote}developer{quote}" in source for quote in "'\""),
        _refuses_late_system(source),
        frozenset(jinja2.meta.find_undeclared_variables(tree)),
        _find_sglang_format(source, tree),
    )
    chat = Chat(None, True, {}, source=source, special_tokens=json.loads(special_tokens))
    return facts._replace(disabled_effort=_find_disabled_effort(chat, facts))


def _find_content_format(tree):
    try:
        return "openai" if _loops_over_content(tree) else "string"
    except _UnclearError:
        return "string"


def _find_sglang_format(source, tree):
    """Return the content format that SGLang takes: by words of media, or by loops over a message of three names.

    Source: SGLang 0.5.23, `srt/parser/jinja_template_utils.py` (`detect_jinja_template_content_format`).
    """
    overs = [loop.iter for loop in tree.find_all(nodes.For)]
    loops = any(_is_of(over, name, "content") for over in overs for name in ("message", "msg", "m"))
    return "openai" if loops or any(word in source for word in ("image", "audio", "video", "vision")) else "string"


class _UnclearError(Exception):
    """Messages or their content go to something else than a plain name; the server then takes its default."""


def _plain_name(target):
    if not isinstance(target, nodes.Name):
        raise _UnclearError
    return target.name


def _loops_over_content(tree):
    """Tell whether a template goes through the parts of a message's content, by name or in a macro that gets it."""
    messages = _names_of(tree, "messages")
    loops = list(tree.find_all(nodes.For))
    names = {_plain_name(loop.target) for loop in loops if any(_is_of(loop.iter, name) for name in messages)}
    macros, inside = _find_macro_contents(tree, names)
    for loop in loops:
        over = loop.iter
        if any(_is_of(over, name, "content") for name in names):
            return bool(_plain_name(loop.target))
        if isinstance(over, nodes.Name) and (
            over.name in macros.get(id(loop), ()) or over.name == "content" and id(loop) not in inside
        ):
            return bool(_plain_name(loop.target))
    return False


def _names_of(tree, name):
    """Return a variable's name and those of variables that are set to it, or to a part or a filtered form of it."""
    names, assigns = [name], list(tree.find_all(nodes.Assign))
    for known in names:  # it grows
        for assign in assigns:
            if _is_of(assign.node, known) and (name := _plain_name(assign.target)) not in names:
                names.append(name)
    return names


def _find_macro_contents(tree, names):
    """Return the parameters of macros that get a message's content, by loop, and the loops that stand in macros."""
    contents, inside = {}, set()
    calls = [call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)]
    for macro in tree.find_all(nodes.Macro):
        parameters, found = [one.name for one in macro.args], set()
        for call in calls:
            if call.node.name == macro.name:
                given = [*zip(parameters, call.args, strict=False), *((one.key, one.value) for one in call.kwargs)]
                found |= {name for name, value in given if any(_is_of(value, one, "content") for one in names)}
        for loop in macro.find_all(nodes.For):
            inside.add(id(loop))
            if found & set(parameters):
                contents[id(loop)] = found & set(parameters)
    return contents, inside


def _is_of(node, name, key=None):
    """Tell whether an expression is a variable, or its `key`: as it is, filtered, tested or sliced."""
    if isinstance(node, nodes.Filter | nodes.Test):
        return node.node is not None and _is_of(node.node, name, key)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _is_of(node.node, name, key)
    if key is None:
        return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == key and _is_of(node.node, name)
    return isinstance(node, nodes.Getattr) and node.attr == key and _is_of(node.node, name)


def _refuses_late_system(source):
    """Tell whether a template refuses a system message after a user's; the trial is without transformers' additions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    messages = [{"role": role, "content": "t"} for role in ("system", "user", "system", "user")]
    try:
        environment.from_string(source).render(messages=messages, add_generation_prompt=False)
    except TemplateError:
        return True
    except Exception:  # any other error stops the server's start; there is no such server to speak of
        return False
    return False


def _find_disabled_effort(chat, facts):
    """Return `low` if the template refuses the effort `none`, or renders it like another one; else `none`."""

    def try_effort(effort):
        settings = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        settings = {name: value for name, value in settings.items() if name in facts.variables}
        content = [{"type": "text", "text": "Hi"}] if facts.content_format == "openai" else "Hi"
        try:
            return render_prompt(chat, Prompt([{"role": "user", "content": content}], None, settings))
        except TemplateRefusal:
            return None

    none = try_effort("none")
    others = [try_effort(effort) for effort in EFFORTS if effort not in ("none", "minimal")]
    return "low" if none is None or none in others else "none"
