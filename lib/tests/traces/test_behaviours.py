"""What behaviours of templates make of conversations: exact texts, any template, and refusals."""

import numpy as np
import pytest
import samples
from samples import as_dicts

from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import FALLBACK_TEMPLATE, QWEN_SYSTEM_PROMPT, find_tokenizer
from kvprefix.traces.behaviours import (
    BEHAVIOURS,
    NO_REASONING,
    SHORT_SYSTEM,
    SYSTEM,
    TOOL_LIST,
    Told,
    encode_behaviour,
    list_told,
)

MESSAGES = as_dicts(samples.conversation("a", "b", "c", "d", "e").messages)
TOLD = Told(
    MESSAGES, [1, 3, 5], ["b", "d", None], ["d", "b", "b"], ["day 1", "day 1", "day 2"], ["9:00", "9:01", "9:02"]
)
THINK_D, THINK_B = "<think>\nd\n</think>\n\n", "<think>\nb\n</think>\n\n"


def write(*said, system=QWEN_SYSTEM_PROMPT):
    """Return a prompt of Qwen's template: texts of the user and the assistant by turns, and the start of a reply."""
    roles = ("user", "assistant") * len(said)
    texts = [("system", system), *zip(roles, said, strict=False)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in texts) + "<|im_start|>assistant\n"


PLAIN = [write("a"), write("a", "b", "c"), write("a", "b", "c", "d", "e")]


def show(text, *said):
    return [f"{text}\n\n{one}" for one in said]


EXPECTED = {
    "none": (PLAIN, ["b", "d", None]),
    "keep": (
        [write("a"), write("a", f"{THINK_D}b", "c"), write("a", f"{THINK_D}b", "c", f"{THINK_B}d", "e")],
        [f"{THINK_D}b", f"{THINK_B}d", None],
    ),
    "strip": (PLAIN, [f"{THINK_D}b", f"{THINK_B}d", None]),
    "strip_gen_think": ([f"{one}<think>\n" for one in PLAIN], ["d\n</think>\n\nb", "b\n</think>\n\nd", None]),
    "empty_think": ([one + NO_REASONING for one in PLAIN], ["b", "d", None]),
    "date_daily": (
        [
            write("a", system=f"day 1\n\n{SHORT_SYSTEM}"), write("a", "b", "c", system=f"day 1\n\n{SHORT_SYSTEM}"),
            write("a", "b", "c", "d", "e", system=f"day 2\n\n{SHORT_SYSTEM}"),
        ],
        ["b", "d", None],
    ),
    "system_first": (
        [write(*show(SYSTEM, "a"), *rest) for rest in ((), ("b", "c"), ("b", "c", "d", "e"))], ["b", "d", None]
    ),
    "tools_in_last": (
        [write(*before, *show(TOOL_LIST, last)) for *before, last in ("a", "abc", "abcde")], ["b", "d", None]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_texts(name, qwen):
    prompts, replies = zip(*BEHAVIOURS[name].tell(TOLD, qwen), strict=True)
    assert (list(prompts), list(replies)) == EXPECTED[name]


def test_a_system_message_stays_behind_the_date(qwen):
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    told = TOLD._replace(messages=messages, ends=[2, 4, 6])
    last = list(BEHAVIOURS["minute_stamp"].tell(told, qwen))[-1][0]
    assert last == write("a", "b", "c", "d", "e", system="9:02\n\nBe brief.")


def test_without_a_change_they_are_the_workloads_own_tokens(bundled_workload, qwen):
    requests, tokens = bundled_workload.requests, bundled_workload.tokens
    told = list_told(bundled_workload, requests.assign(arrival_s=np.arange(len(requests), dtype=float)))
    made = encode_behaviour(BEHAVIOURS["none"], told, qwen)
    assert made.prompt_lengths().tolist() == requests["prompt_tokens"].tolist()
    for k, row in enumerate(requests.index):
        assert np.array_equal(made.prompt(k), tokens.prompt(row))
        assert np.array_equal(made.generated(k), tokens.generated(row))


def test_reasoning_is_the_beginning_of_the_next_reply(bundled_workload):
    requests = bundled_workload.requests.assign(arrival_s=0.0)
    for told, (_, some) in zip(
        list_told(bundled_workload, requests), requests.groupby("conversation_index"), strict=True
    ):
        for k, (thought, reply) in enumerate(zip(told.thoughts, told.replies, strict=True)):
            following = told.replies[k + 1] if k + 1 < len(told.replies) else None
            source = following if following is not None else told.replies[0]
            assert (reply is None or source.startswith(thought)) and told.days[k].startswith("Today Date: ")
            if source is not None and some["output_tokens"].iloc[k + 1 if following is not None else 0] <= 201:
                assert thought == source


@pytest.mark.parametrize("template", [samples.REASONING_TEMPLATE, FALLBACK_TEMPLATE, samples.TRIM_TEMPLATE])
def test_any_template(template, tmp_path):
    """Kept reasoning is in the prompt even if the template would leave it out; without fences too."""
    chat = load_chat(find_tokenizer(samples.save_small_tokenizer(tmp_path, template)))
    for name, one in BEHAVIOURS.items():
        prompts, replies = zip(*one.tell(TOLD, chat), strict=True)
        assert (THINK_B in prompts[-1]) == (name == "keep")
        tokens = encode_behaviour(one, [TOLD, TOLD], chat)
        for k, text in enumerate(prompts * 2):
            assert tokens.prompt(k).tolist() == np.concatenate(chat.encode(chat.split(text))).tolist()
        assert [len(tokens.generated(k)) > 0 for k in range(3)] == [one is not None for one in replies]


def test_a_template_that_writes_a_message_twice_is_refused(tmp_path):
    twice = FALLBACK_TEMPLATE.replace("message.content", "message.content + message.content")
    chat = load_chat(find_tokenizer(samples.save_small_tokenizer(tmp_path, twice)))
    with pytest.raises(TemplateRefusal, match="does not write every message once"):
        encode_behaviour(BEHAVIOURS["keep"], [TOLD], chat)
    assert len(encode_behaviour(BEHAVIOURS["strip"], [TOLD], chat).shared) == 3
