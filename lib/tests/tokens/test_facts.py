from dataclasses import replace

import pytest

from kvprefix.tokens.facts import find_facts


@pytest.mark.parametrize(
    "source, content_format",
    [
        ("{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}", "openai"),
        ("{% for m in messages %}{% for c in m['content'] | list %}{{ c }}{% endfor %}{% endfor %}", "openai"),
        ("{% set rest = messages[1:] %}{% for m in rest %}{% for c in m.content %}{% endfor %}{% endfor %}", "openai"),
        (
            "{% for m in messages %}{% set content = m.content %}"
            "{% for c in content %}{{ c }}{% endfor %}{% endfor %}", "openai",
        ),
        (
            "{% macro show(parts) %}{% for p in parts %}{{ p.text }}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(m.content) }}{% endfor %}", "openai",
        ),
        (
            "{% macro show(content) %}{% for p in content %}{{ p.text }}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(content=m.content) }}{% endfor %}", "openai",
        ),
        (
            "{% macro show(content) %}{% for p in content %}{{ p.text }}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(m.parts) }}{% endfor %}", "string",
        ),
        ("{% for m in messages %}{{ m.content }}{% for t in m.tool_calls %}{{ t }}{% endfor %}{% endfor %}", "string"),
        ("{% set ns = namespace(x=0) %}{% set ns.x = messages %}{% for m in messages %}"
         "{% for c in m.content %}{% endfor %}{% endfor %}", "string"),
        ("{% for k, m in messages | items %}{% for c in m.content %}{% endfor %}{% endfor %}", "string"),
    ],
)  # fmt: skip
def test_content_format_is_read_off_the_loops(qwen, source, content_format):
    assert find_facts(replace(qwen, source=source)).content_format == content_format


@pytest.mark.parametrize(
    "source, content_format",
    [
        ("{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}", "openai"),
        ("{% for one in messages %}{% for c in one.content %}{{ c.text }}{% endfor %}{% endfor %}", "string"),
        ("{% for m in messages %}{{ m.content }}{# no image #}{% endfor %}", "openai"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "string"),
    ],
)
def test_sglang_reads_the_format_in_its_own_way(qwen, source, content_format):
    assert find_facts(replace(qwen, source=source)).sglang_format == content_format


def test_other_facts(qwen):
    facts = find_facts(replace(qwen, source="{% if messages[0].role == 'developer' %}{{ foo }}{% endif %}{{ bar(1) }}"))
    assert facts.knows_developer and {"messages", "foo", "bar"} == facts.variables
    assert facts.refuses_late_system  # `bar` is not there in the server's trial
    strict = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}"
    strict += "{% endif %}{{ m.content }}{% endfor %}"
    assert find_facts(replace(qwen, source=strict)).refuses_late_system
    assert not find_facts(qwen).refuses_late_system and not find_facts(qwen).knows_developer


@pytest.mark.parametrize(
    "source, effort",
    [
        ("{{ enable_thinking }}", "none"),
        ("{{ reasoning_effort }}", "none"),
        ("{{ reasoning_effort if reasoning_effort in ('low', 'high') else 'max' }}", "low"),
        ("{{ raise_exception('no such effort') if reasoning_effort == 'none' }}", "low"),
        ("{{ messages[0].content }}", "low"),
    ],
)
def test_the_effort_of_disabled_thinking_is_tried(qwen, source, effort):
    assert find_facts(replace(qwen, source=source)).disabled_effort == effort


def test_a_tokenizer_that_renders_in_its_own_way_has_no_facts(qwen):
    assert find_facts(replace(qwen, source=None)).variables == frozenset()
