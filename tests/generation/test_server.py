"""A real server on loopback that answers, refuses, stumbles or falls silent; what of it becomes a completion."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lit_pref.errors import UserError
from lit_pref.generation import OpenAIGenerator
from lit_pref.types import Completion, Sampling

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"})
Reply = dict[str, Any]
Script = Callable[["LoopbackServer", Reply], Any]
"""(server, request) to the answer's JSON, (status, JSON), or bytes; None drops the connection."""


def answered(text: str | None, finish: str = "stop", **more: Any) -> Reply:
    return {"index": 0, "text": text, "finish_reason": finish, **more}


def said(text: str | None, finish: str = "stop", **more: Any) -> Reply:
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}


def echo(server: "LoopbackServer", request: Reply) -> Reply:
    """Each choice is the prompt's last words, the request's seed and the choice's number."""
    if "prompt" in request:
        return {"choices": [answered(f"{request['prompt']}|{request['seed']}|{i}") for i in range(request["n"])]}
    last = request["messages"][-1]["content"]
    return {"choices": [said(f"{last}|{request['seed']}|{i}") for i in range(request["n"])]}


class _QuietHTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # a client that went away


class LoopbackServer:
    """Answers as its script says, and keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Reply] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = _QuietHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.requests.append(request)
                    server.paths.append(self.path)
                    server.keys.append(self.headers["authorization"])
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                try:
                    answer = server.script(server, request)
                finally:
                    with server._lock:
                        server._at_once -= 1
                self.answer(answer)

            def answer(self, answer: Any) -> None:
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.send_header("retry-after-ms", "1")  # else the first wait is half a second
                self.end_headers()
                self.wfile.write(content)

        return Handler


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], LoopbackServer]]:
    for variable in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    servers: list[LoopbackServer] = []

    def start(script: Script) -> LoopbackServer:
        servers.append(LoopbackServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Script], LoopbackServer]


def ask(server: LoopbackServer, *prompts: Any, samples: int = 1, seed: int = 0, **settings: Any) -> Any:
    sampling = settings.pop("sampling", Sampling())
    return OpenAIGenerator("m", server.url, **settings).generate(prompts, samples, sampling, seed)


# --- what is asked, and what comes back -------------------------------------------------------------------------------


def test_text_is_completed_and_a_conversation_answered(serve: Serve) -> None:
    server = serve(echo)
    sampling = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=7)
    ((plain,), (chat,)) = ask(server, "def f", CHAT, sampling=sampling)
    assert plain.text.startswith("def f|") and chat.text.startswith("hi|")
    assert plain.finished and (plain.token_ids, plain.logps) == ((), ())
    by_path = dict(zip(server.paths, server.requests, strict=True))
    assert by_path.keys() == {"/v1/completions", "/v1/chat/completions"}
    assert by_path["/v1/completions"]["prompt"] == "def f"
    assert by_path["/v1/chat/completions"]["messages"] == list(CHAT)
    for request in server.requests:
        asked = {"model": "m", "n": 1, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7}
        assert request.items() >= asked.items()
        assert not request.keys() & {"logprobs", "return_token_ids"}


def test_answers_are_in_order_whatever_their_time(serve: Serve) -> None:
    def later_first(server: LoopbackServer, request: Reply) -> Reply:
        time.sleep(0.05 if request["prompt"] == "0" else 0.0)
        return echo(server, request)

    server = serve(later_first)
    answers = ask(server, *map(str, range(6)), samples=2)
    assert [[each.text.split("|")[0] for each in several] for several in answers] == [[str(i)] * 2 for i in range(6)]


def test_no_more_requests_at_once_than_concurrency(serve: Serve) -> None:
    def slow(server: LoopbackServer, request: Reply) -> Reply:
        time.sleep(0.02)
        return echo(server, request)

    server = serve(slow)
    ask(server, *map(str, range(12)), concurrency=3)
    assert server.most_at_once == 3


def test_seeds_tell_prompts_and_runs_apart_and_repeat(serve: Serve) -> None:
    server = serve(echo)
    first = ask(server, "a", "a", samples=2)
    assert first == ask(server, "a", "a", samples=2)
    assert first != ask(server, "a", "a", samples=2, seed=1)
    seeds = [request["seed"] for request in server.requests]
    assert len(set(seeds)) == 4  # two prompts, two runs' seeds
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("refusal", [400, 422, None], ids=["refuses n", "cannot process n", "ignores n"])
def test_a_server_that_gives_one_at_a_time_is_asked_again(serve: Serve, refusal: int | None) -> None:
    def single(server: LoopbackServer, request: Reply) -> Any:
        if refusal and request["n"] > 1:
            return refusal, {"error": {"message": "n must be 1"}}
        return {"choices": [answered(f"{request['prompt']}|{request['seed']}")]}

    server = serve(single)
    answers = ask(server, "a", "b", samples=3)
    assert [len(several) for several in answers] == [3, 3]
    assert len({each.text for several in answers for each in several}) == 6  # each request has a seed of its own
    assert answers == ask(server, "a", "b", samples=3)
    once_learned = OpenAIGenerator("m", server.url)
    once_learned.generate(["a"], 3, Sampling(), 0)
    server.requests.clear()
    assert once_learned.generate(["a", "b"], 3, Sampling(), 0) == answers
    assert [request["n"] for request in server.requests] == [1] * 6


def test_greedy_is_asked_once_and_copied(serve: Serve) -> None:
    server = serve(echo)
    ((first, second, third),) = ask(server, "a", samples=3, sampling=Sampling(temperature=0.0))
    assert first == second == third
    assert [request["n"] for request in server.requests] == [1]


@pytest.mark.parametrize(("finish", "finished"), [("stop", True), ("length", False), ("content_filter", False)])
def test_a_cut_answer_is_not_finished(serve: Serve, finish: str, finished: bool) -> None:
    ((found,),) = ask(serve(lambda *_: {"choices": [answered("x", finish)]}), "a")
    assert found == Completion("x", (), (), finished)


@pytest.mark.parametrize("prompt", ["a", CHAT], ids=["text", "chat"])
@pytest.mark.parametrize("content", ["", None])
def test_an_empty_answer_counts(serve: Serve, prompt: Any, content: str | None) -> None:
    choice = said(content) if prompt is CHAT else answered(content or "")
    assert ask(serve(lambda *_: {"choices": [choice]}), prompt) == [[Completion("", (), (), True)]]


@pytest.mark.parametrize("prompt", ["a", CHAT], ids=["text", "chat"])
def test_sampled_tokens_and_their_log_probs(serve: Serve, prompt: Any) -> None:
    logprobs = {"content": [{"token": "x", "logprob": -0.5}, {"token": "</s>", "logprob": -0.25}]}
    if prompt is CHAT:
        choice = said("x", token_ids=[7, 2], logprobs=logprobs)
    else:
        choice = answered("x", token_ids=[7, 2], logprobs={"tokens": ["x", "</s>"], "token_logprobs": [-0.5, -0.25]})
    server = serve(lambda *_: {"choices": [choice]})
    assert ask(server, prompt, token_ids=True) == [[Completion("x", (7, 2), (-0.5, -0.25), True)]]
    (request,) = server.requests
    assert request["return_token_ids"] is True
    # /completions counts the likeliest tokens to name beside the sampled one, /chat/completions says yes or no
    assert request["logprobs"] is True if prompt is CHAT else request["logprobs"] == 0
    # without asking for them they are left alone: a server may name tokens of a vocabulary that is not the policy's
    assert ask(server, prompt) == [[Completion("x", (), (), True)]]


def test_log_probs_that_do_not_fit_the_tokens_are_left_out(serve: Serve) -> None:
    choice = answered("x", token_ids=[7, 2], logprobs={"token_logprobs": [-0.5]})
    assert ask(serve(lambda *_: {"choices": [choice]}), "a", token_ids=True) == [[Completion("x", (7, 2), (), True)]]


def test_a_stop_text_ends_a_completion_whatever_the_server_takes_of_them(serve: Serve) -> None:
    # The API takes four; the server here knows none, and the fifth is the first to appear.
    server = serve(lambda *_: {"choices": [answered("return 1\nprint(2)\ndef g", "length", token_ids=[7, 8])]})
    sampling = Sampling(stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"))
    assert ask(server, "a", sampling=sampling, token_ids=True) == [[Completion("return 1", (), (), True)]]
    assert server.requests[0]["stop"] == ["\nclass", "\ndef", "\n#", "\nif"]
    ask(server, "a")
    assert "stop" not in server.requests[1]


def test_answers_come_as_they_end_and_what_is_done_is_not_asked_for(serve: Serve) -> None:
    def slow(server: LoopbackServer, request: Reply) -> Reply:
        if request["prompt"] == "slow":
            go_on.wait()
        return echo(server, request)

    with held() as go_on:
        server = serve(slow)
        drawn = OpenAIGenerator("m", server.url).each(["slow", "b", "c"], 2, Sampling(), 0, {(1, 0), (2, 0), (2, 1)})
        first = next(drawn)
        assert (first.prompt, first.sample) == (1, 1) and first.completion.text.startswith("b|")
        go_on.set()
        assert [(row, sample) for row, sample, _ in drawn] == [(0, 0), (0, 1)]
    asked = {(request["prompt"], request["n"]) for request in server.requests}
    assert asked == {("slow", 2), ("b", 1)}


@pytest.mark.parametrize("in_a_loop", [False, True], ids=["a script", "a notebook"])
def test_who_leaves_early_cancels_the_rest(serve: Serve, in_a_loop: bool) -> None:
    def slow(server: LoopbackServer, request: Reply) -> Reply:
        if request["prompt"] == "slow":
            go_on.wait()
        return echo(server, request)

    async def cell() -> None:
        first()

    def first() -> None:
        with closing(OpenAIGenerator("m", server.url).each(["slow", "b"], 1, Sampling(), 0)) as drawn:
            assert next(drawn).prompt == 1

    with held() as go_on:
        server = serve(slow)
        asyncio.run(cell()) if in_a_loop else first()
        assert not go_on.is_set()


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stumble", [(429, {"error": {"message": "slow down"}}), (500, b"boom"), (503, b""), None])
def test_a_stumble_is_overcome(serve: Serve, stumble: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only an answer can say how long to wait; a dropped connection is tried again after the package's own time.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)

    def twice(server: LoopbackServer, request: Reply) -> Any:
        return stumble if len(server.requests) < 3 else echo(server, request)

    server = serve(twice)
    ((found,),) = ask(server, "a", retries=2)
    assert found.text.startswith("a|") and len(server.requests) == 3
    assert len({request["seed"] for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ((429, {"error": {"message": "slow\ndown"}}), "/v1/completions: answered 429: slow down"),
        ((500, b"boom"), "/v1/completions: answered 500: boom"),
        ((404, {"error": {"message": "no model m"}}), "/v1/completions: answered 404: no model m"),
        ((401, {"error": "who are you?"}), "/v1/completions: answered 401: who are you?"),
        ((200, b""), "/v1/completions: the answer is no JSON"),
        ((200, {"choices": []}), "/v1/completions: the answer holds no choice"),
        ((200, {"error": "odd"}), "expected an answer with choices, got \"{'error': 'odd'}\""),
        ((200, {"choices": [{"index": 0}]}), "expected an answer with choices, got"),
        ((200, [1]), "expected an answer with choices, got '[1]'"),
    ],
)
def test_what_retries_do_not_mend_names_address_and_answer(serve: Serve, reply: Any, expected: str) -> None:
    server = serve(lambda *_: reply)
    with pytest.raises(UserError) as error:
        ask(server, "a", "b", retries=1)
    assert str(error.value).startswith(server.url) and expected in str(error.value)


def test_a_dropped_connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    server = serve(lambda *_: None)
    with pytest.raises(UserError, match=r"/v1/completions: no connection \(Server disconnected.*1 retries included"):
        ask(server, "a", retries=1)
    assert len(server.requests) == 2


def test_no_server_at_all(serve: Serve) -> None:
    server = serve(echo)
    server.close()
    with pytest.raises(UserError, match=r"no connection .*does the server run"):
        ask(server, "a", retries=0)


@contextmanager
def held() -> Iterator[threading.Event]:
    """What a server waits for, so that its answer does not come: not set by anyone but after minutes, nor needed."""
    event = threading.Event()
    watchdog = threading.Timer(120, event.set)
    watchdog.start()
    yield event
    watchdog.cancel()
    event.set()


def test_a_server_that_hangs(serve: Serve) -> None:
    with held() as go_on:
        server = serve(lambda *_: go_on.wait() and {})
        with pytest.raises(UserError, match=r"no answer within 0\.1 s, 0 retries included"):
            ask(server, "a", "b", retries=0, timeout=0.1)
        assert not go_on.is_set()


def test_one_failure_ends_the_others(serve: Serve) -> None:
    def hang_or_fail(server: LoopbackServer, request: Reply) -> Any:
        if request["prompt"] == "bad":
            return 404, {"error": {"message": "gone"}}
        go_on.wait()
        return echo(server, request)

    with held() as go_on:
        with pytest.raises(UserError, match="answered 404: gone"):
            ask(serve(hang_or_fail), "slow", "bad")
        assert not go_on.is_set()


def test_ctrl_c_ends_what_is_under_way(serve: Serve) -> None:
    def interrupt(server: LoopbackServer, request: Reply) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait()
        return {}

    with held() as go_on:
        with pytest.raises(KeyboardInterrupt):
            ask(serve(interrupt), "a")
        assert not go_on.is_set()


def test_a_server_without_token_ids_is_refused_where_they_are_wanted(serve: Serve) -> None:
    with pytest.raises(UserError, match=r"gives no token ids, as vLLM from 0\.10\.2 does: set token_ids to false"):
        ask(serve(echo), "a", token_ids=True)


def test_the_key_is_sent_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def quote(server: LoopbackServer, request: Reply) -> Any:
        return 401, {"error": {"message": f"bad key {server.keys[-1]}"}}

    server = serve(quote)
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    generator = OpenAIGenerator("m", server.url, api_key="secret-1")
    assert "secret-1" not in repr(generator)
    assert generator == OpenAIGenerator("m", server.url)  # a key makes no other samples
    with pytest.raises(UserError) as error:
        generator.generate(["a"], 1, Sampling(), 0)
    assert server.keys == ["Bearer secret-1"] and "secret-1" not in str(error.value) and "***" in str(error.value)
    with pytest.raises(UserError):
        OpenAIGenerator("m", server.url).generate(["a"], 1, Sampling(), 0)
    assert server.keys[-1] == "Bearer from-environment"


def test_a_missing_package_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"needs the openai package: pip install 'lit-pref\[server\]'"):
        OpenAIGenerator("m").generate(["a"], 1, Sampling(), 0)


def test_works_where_a_loop_is_running_already(serve: Serve) -> None:
    server = serve(echo)

    async def cell() -> Any:
        return ask(server, "a")

    ((found,),) = asyncio.run(cell())
    assert found.text.startswith("a|")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"concurrency": 0}, "concurrency must be >= 1, got 0"),
        ({"retries": -1}, "retries must be >= 0, got -1"),
        ({"timeout": 0.0}, "timeout must be > 0 seconds, got 0.0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        OpenAIGenerator("m", **settings)
