"""By what a JSON object shows that it is of a trace of sessions; nothing heavy is imported."""


def is_agent_session(record):
    """Say whether an object is an agentic session, see `agent_sessions`."""
    return isinstance(record.get("requests"), list) and "block_size" in record


def is_agentic_head(record):
    """Say whether an object is the first line of agentic Mooncake's version 2."""
    return record.get("schema") == "dynamo.agentic_mooncake" and "hash_ids" not in record


def is_agentic_line(record):
    """Say whether an object can only be a request of agentic Mooncake."""
    return {"hash_ids", "request_id"} <= record.keys() and not record.keys().isdisjoint(
        ("wait_for", "tool_wait_ms", "branches", "prefix_reset", "play_id")
    )


def is_dynamo_line(record):
    """Say whether an object holds one of Dynamo's events."""
    event = record.get("event", record)
    return isinstance(event, dict) and {"event_type", "event_time_unix_ms"} <= event.keys()


def is_tracelab_round(record):
    """Say whether an object is one of TraceLab's rounds."""
    return {"session_id", "prefix_tokens", "timing_events"} <= record.keys()
