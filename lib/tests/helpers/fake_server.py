"""A small OpenAI-compatible server for tests: an unlimited prefix cache in plain Python, and faults on request."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 4


class FakeServer:
    """What the server does; tests change it.

    `faults` maps the number of a request (0-based, of all POSTs) to what goes wrong with it.
    """

    def __init__(self):
        self.faults, self.asked, self.cached, self.started_s = {}, [], set(), []
        self.reports_cached, self.gives_token_ids, self.has_metrics, self.extra_prompt = True, True, True, 0
        self.max_model_len, self.tells_max_model_len, self.queries, self.hits = 64, True, 0, 0
        self.delay_s, self.knows_token_ids_option, self.version = 0.0, True, "0.32.0"
        self.metrics_block_size, self.lock = BLOCK, threading.Lock()
        self.streams, self.refuses, self.can_reset, self.process_start_s = True, None, True, None
        self.labels, self.hits_nothing, self.leaves_zeros_out, self.second_usage = "", False, False, None

    def restart(self):
        """Begin anew, as another process would."""
        self.cached.clear()
        self.queries = self.hits = 0

    def look_up(self, prompt, salt):
        """Return the cached tokens: leading full blocks seen before, never the last token; remember the prompt's."""
        hit = 0
        while not self.hits_nothing and hit + BLOCK < len(prompt) and (salt, *prompt[: hit + BLOCK]) in self.cached:
            hit += BLOCK
        for stop in range(BLOCK, len(prompt) + 1, BLOCK):
            self.cached.add((salt, *prompt[:stop]))
        self.queries, self.hits = self.queries + len(prompt), self.hits + hit
        return hit

    def metrics(self):
        size, start = self.metrics_block_size, self.process_start_s
        process = "" if start is None else f"process_start_time_seconds {start!r}\n"
        return process + (
            "# HELP vllm:prefix_cache_queries_total x\n"
            f'vllm:prefix_cache_queries_total{{engine="0",model_name="m"}} {float(self.queries)}\n'
            f'vllm:prefix_cache_hits_total{{engine="0",model_name="m"}} {float(self.hits)}\n'
            f'vllm:cache_config_info{{{self.labels}block_size="{size}",engine="0",num_gpu_blocks="None"}} 1.0\n'
        )


@contextmanager
def serve(fake):
    """Run the server in a thread; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(ConnectionError):  # a client that gave up
                super().handle()

        def send(self, status, text, kind="application/json", headers=()):
            data = text.encode()
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):  # noqa: N802
            length = {"max_model_len": fake.max_model_len} if fake.tells_max_model_len else {}
            if self.path == "/v1/models":
                self.send(200, json.dumps({"data": [{"id": "m", **length}]}))
            elif self.path == "/version":
                self.send(200, json.dumps({"version": fake.version}))
            elif self.path == "/metrics" and fake.has_metrics:
                self.send(200, fake.metrics(), "text/plain")
            else:
                self.send(404, '{"detail": "Not Found"}')

        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "null")
            if self.path == "/reset_prefix_cache":
                fake.cached.clear()
                return self.send(*((200, '{"success": true}') if fake.can_reset else (404, '{"detail": "Not Found"}')))
            with fake.lock:
                number, fault = len(fake.asked), fake.faults.get(len(fake.asked))
                fake.asked.append(body)
                fake.started_s.append(time.monotonic())
            if not fake.knows_token_ids_option and "return_token_ids" in body:
                return self.send(400, '{"error": {"message": "unrecognized argument: return_token_ids"}}')
            if fake.refuses in body:
                return self.send(400, json.dumps({"error": {"message": f"Extra inputs: {fake.refuses}"}}))
            if isinstance(fault, tuple):
                return self.send(fault[0], json.dumps({"error": {"message": fault[1]}}))
            prompt = body.get("prompt") or [ord(c) for one in body["messages"] for c in one["content"]]
            if len(prompt) + body["max_tokens"] > fake.max_model_len:
                return self.send(400, '{"error": {"message": "This model\'s maximum context length is 64 tokens."}}')
            with fake.lock:
                hit = fake.look_up(prompt, body.get("cache_salt"))
            if fault == "slow":
                time.sleep(0.6)
            time.sleep(fake.delay_s)
            if fault == "nonsense":
                return self.send(200, "<html>Welcome to nginx</html>", "text/html")
            if fault == "no json":
                return self.send(200, "data: {half\n\ndata: [DONE]\n\n", "text/event-stream")
            events = self.make_events(body, prompt, hit, number)
            if fault == "no usage":
                events = events[:1]
            if not fake.streams or not body.get("stream"):
                return self.send(200, json.dumps({**events[0], **events[-1], "choices": events[0]["choices"]}))
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            if fault == "error event":
                text = 'data: {"error": {"message": "engine died", "code": 500}}\n\ndata: [DONE]\n\n'
            elif fault != "cut":
                text += "data: [DONE]\n\n"
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            if fault == "cut":
                self.send_header("Content-Length", str(len(data) + 100))
            self.end_headers()
            self.wfile.write(data)

        def make_events(self, body, prompt, hit, number):
            tokens = list(range(1000 + 10 * number, 1000 + 10 * number + body["max_tokens"]))
            ids = {"token_ids": tokens} if fake.gives_token_ids and body.get("return_token_ids") else {}
            usage = {"prompt_tokens": len(prompt) + fake.extra_prompt, "completion_tokens": len(tokens)}
            if fake.reports_cached and (hit or not fake.leaves_zeros_out):
                usage["prompt_tokens_details"] = {"cached_tokens": hit}
            events = [
                {"choices": [{"text": "x", "finish_reason": "length", **ids}]},
                {"choices": [], "usage": usage},
            ]
            if fake.second_usage is not None:  # of a proxy that counts by itself
                own = {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
                events.append({"choices": [], "usage": own | fake.second_usage})
            return events

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
