"""The page that says how to have a log: its logger writes what is read, and its filter finds vLLM's bodies."""

import json
import re
import subprocess
import sys
import types

from places import LIB

from kvprefix.conversations.calls import Usage
from kvprefix.conversations.traffic import read_traffic

PAGE = (LIB / "docs" / "how-to" / "get-a-log.md").read_text(encoding="utf-8")
BODY = {"model": "m", "system": "s", "messages": [{"role": "user", "content": "Grüße"}]}
LOGGED = (
    "(MainProcess pid=7) INFO 11-29 12:25:57 [entrypoints/.../utils/request_logger.py:84] Request a88c JSON body: {}\n"
    "(MainProcess pid=7) DEBUG 11-29 12:25:58 [entrypoints/.../request_logger.py:84] Request a88d JSON body: {}\n"
    "(MainProcess pid=7) INFO 11-29 12:25:58 [launcher.py:3] Route: /v1/models\n"
)


def test_the_logger_for_litellm_writes_what_is_read(tmp_path, monkeypatch):
    for name in ("litellm", "litellm.integrations", "litellm.integrations.custom_logger"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["litellm.integrations.custom_logger"].CustomLogger = object
    monkeypatch.chdir(tmp_path)
    made = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], made)
    sent = {**BODY, "metadata": {"headers": {"authorization": "secret"}}, "litellm_call_id": "x"}
    payload = {
        "id": "a", "trace_id": "t", "call_type": "anthropic_messages", "status": "success", "startTime": 5.0,
        "endTime": 6.0, "model": "hosted_vllm/m", "messages": BODY["messages"], "prompt_tokens": 3,
        "metadata": {"user_api_key_hash": "secret"}, "completion_tokens": 1, "model_parameters": {},
    }  # fmt: skip
    params = {"proxy_server_request": {"url": "http://127.0.0.1:4000/v1/messages", "body": sent}}
    made["writer"].write({"standard_logging_object": payload, "litellm_params": params})
    made["writer"].write({"standard_logging_object": {**payload, "status": "failure"}})
    assert "secret" not in (tmp_path / "log.jsonl").read_text()
    (call,) = read_traffic(tmp_path / "log.jsonl")
    assert (call.api, call.body, call.session, call.usage) == ("messages", BODY, "t", Usage(3, None, 1))


def test_the_filter_finds_the_bodies_that_vllm_prints(tmp_path):
    (tmp_path / "vllm.log").write_text(LOGGED.replace("{}", json.dumps(BODY, ensure_ascii=False)))
    command = re.search(r"^sed .*$", PAGE, re.MULTILINE)[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    calls = list(read_traffic(tmp_path / "log.jsonl"))
    assert [(call.name, call.start_s) for call in calls] == [("a88c", 1795955157.0), ("a88d", 1795955158.0)]
    assert [call.body for call in calls] == [BODY, BODY]
