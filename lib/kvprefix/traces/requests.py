"""Make the table of requests and the tokens from the joined parts of a workload, and count refused conversations."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)

from kvprefix.tokens.messages import Messages, add_up
from kvprefix.traces.call_requests import make_call_requests, make_joined_tokens


def count_refused(dataset, note):
    """Return the dataset's counts with conversations that the template refused as skipped; they keep their index.

    Late turns that it refused, and the turns after them, count as repairs.
    """
    if note["late_turns"]:
        kind, (index, turn, _, reason) = "turns_refused_by_template_dropped", note["first_late"]
        dataset = {
            **dataset,
            "repaired": {**dataset["repaired"], kind: note["late_turns"]},
            "first_repaired": {kind: f"conversation {index}, turn {turn}: {reason}"},
        }
    if not note["refused"]:
        return dataset
    first, reason = note["first_refused"]
    return {
        **dataset,
        "skipped": {**dataset["skipped"], "refused_by_template": note["refused"]},
        "first_skipped": {**dataset["first_skipped"], "refused_by_template": f"conversation {first}: {reason}"},
        "conversations": dataset["conversations"] - note["refused"],
    }


def describe_all_refused(note, source):
    """Say why a workload has no request: what the template, or a server's rules, said first."""
    if note["first_refused"] is not None:
        reason = note["first_refused"][1]
        return f"tokenizer {source.tokenizer}: its chat template refuses every conversation: {reason}"
    lost = note["calls"]["refused"]
    said = "; ".join(f"{count:,} by {reason} ({place}: {why})" for reason, (count, place, why) in lost.items())
    return f"{source.data}: no request can be rendered: {said}"


def take_first(made, most):
    """Return requests, tokens and messages with the requests of the first `most` conversations alone; None: of all.

    Conversations of text are counted while they are read. What a call belongs to is known only when all are read.
    """
    requests, *others = made
    if most is not None and "start_s" in requests:
        requests = requests[requests["conversation_index"] < most]
    return requests, *others


def make_requests(joined):
    """Return (DataFrame of requests, their Tokens, the Messages of their conversations).

    A request's index is its row in the tokens. If the rows are of calls, the frame has the columns of `call_requests`.
    """
    if "start_s" in joined.rows.column_names:
        return make_call_requests(joined)
    rows = {name: joined.rows[name].to_numpy() for name in joined.rows.column_names if name != "conversation_id"}
    turn, index = rows["turn"].astype(np.int64), rows["conversation"].astype(np.int64)
    parent = np.where(turn > 0, np.arange(len(turn)) - 1, -1)
    tokens = make_joined_tokens(joined, parent)
    requests = pd.DataFrame({
        "request_id": _name_requests(joined.rows["conversation"], joined.rows["turn"]),
        "conversation_index": index,
        "conversation_id": joined.rows["conversation_id"].to_pandas(),
        "turn": turn,
        "prompt_tokens": tokens.prompt_lengths(),
        "output_tokens": np.diff(tokens.output_offsets),
        "messages": rows["messages"].astype(np.int64),
    })  # fmt: skip
    counts = np.zeros(joined.note["conversations"], np.int64)
    counts[index[turn == 0]] = rows["said_lengths"][turn == 0]
    messages = Messages(joined.arrays["said"], add_up(joined.arrays["said_lengths"]), add_up(counts))
    return requests, tokens, messages


def _name_requests(conversation, turn):
    """Return `c{conversation}t{turn}` of every request."""
    texts = ["c", conversation.cast(pa.string()), "t", turn.cast(pa.string()), ""]  # the last one is the separator
    return pa.compute.binary_join_element_wise(*texts).to_pandas()
