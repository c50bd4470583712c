"""Completions from a server that speaks OpenAI's API: vLLM, llama.cpp, transformers serve, OpenAI itself.

Plain prompts go to /completions; conversations to /chat/completions, where the server's chat template applies.
A server gives text, which training tokenizes again. Only vLLM gives the sampled tokens too (`token_ids`).
Not covered: streaming, tools, answers with a hidden part; what a server takes from the model's generation_config: vLLM
top_k and penalties, unless it is started with `--generation-config vllm`, and transformers serve whether to sample at
all (`do_sample`; else it is greedy at any temperature).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from lit_pref.errors import UserError
from lit_pref.generation.event_loop import answers_of
from lit_pref.types import Completion, Drawn, Generator, Sampling, Text

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CUT = ("length", "content_filter")  # finish reasons of an answer that did not come to its end
_REFUSES_N = (400, 422)  # what servers answer that give one completion a request
_SHOWN = 300  # characters of what a server said
_STOPS = 4  # texts that OpenAI's API takes at most; the others are looked for here


@dataclass
class OpenAIGenerator(Generator):
    """Samples from a server, many requests at once, answers in order.

    Each request is seeded by seed, prompt and sample number. Whether the same seed gives the same text again is up to
    the server. Fields that do not compare change how it is asked, not what it answers.

    Args:
        model: its name on the server.
        base_url: the address, /v1 included.
        api_key: None takes the environment variable OPENAI_API_KEY; shown and kept nowhere.
        token_ids: ask for the sampled tokens and their log-probs; vLLM from 0.10.2 gives them.
        concurrency: requests under way at once.
        retries: how often a request is sent again after 408, 409, 429, any 5xx, a timeout or a dropped connection,
            with growing waits.
        timeout: seconds until a request counts as lost.
    """

    model: str
    base_url: str = "http://localhost:8000/v1"
    api_key: str | None = field(default=None, repr=False, compare=False)
    token_ids: bool = False
    concurrency: int = field(default=32, compare=False)
    retries: int = field(default=6, compare=False)
    timeout: float = field(default=600.0, compare=False)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be >= 1, got {self.concurrency}")
        if self.retries < 0:
            raise ValueError(f"retries must be >= 0, got {self.retries}")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must be as http://localhost:8000/v1, got {self.base_url!r}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {self.timeout}")
        self._takes_n = True  # several completions a request, until the server shows that it does not

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order; greedy decoding asks for one and copies it.

        Raises UserError, which names the address and what the server said, for what retries do not mend.
        """
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        found = {(row, sample): completion for row, sample, completion in self.each(prompts, samples, sampling, seed)}
        return [[found[row, sample] for sample in range(samples)] for row in range(len(prompts))]

    def each(
        self,
        prompts: Sequence[Text],
        samples: int,
        sampling: Sampling,
        seed: int,
        done: Collection[tuple[int, int]] = (),
    ) -> Iterator[Drawn]:
        """As `Generator.each`, as requests are answered."""
        left: dict[int, list[int]] = {}
        for row, sample in sorted({(row, n) for row in range(len(prompts)) for n in range(samples)} - set(done)):
            left.setdefault(row, []).append(sample)
        yield from answers_of(self._answers(prompts, left, sampling, seed))

    async def _answers(
        self, prompts: Sequence[Text], left: dict[int, list[int]], sampling: Sampling, seed: int
    ) -> AsyncIterator[Drawn]:
        """left: the samples to draw of each prompt, by their places."""
        answers: asyncio.Queue[Drawn | None] = asyncio.Queue()
        work = asyncio.create_task(self._all(prompts, left, sampling, seed, answers.put_nowait))
        work.add_done_callback(lambda _: answers.put_nowait(None))
        try:
            while (drawn := await answers.get()) is not None:
                yield drawn
            await work  # raises what stopped it
        finally:
            work.cancel()

    async def _all(
        self,
        prompts: Sequence[Text],
        left: dict[int, list[int]],
        sampling: Sampling,
        seed: int,
        keep: Callable[[Drawn], None],
    ) -> None:
        limit = asyncio.Semaphore(self.concurrency)
        async with self._client() as client:

            async def draw(row: int, samples: list[int]) -> None:
                async for completions in self._several(client, limit, prompts[row], samples, sampling, f"{seed}:{row}"):
                    for sample, completion in completions:
                        keep(Drawn(row, sample, completion))

            try:
                async with asyncio.TaskGroup() as group:
                    for row, samples in left.items():
                        group.create_task(draw(row, samples))
            except* UserError as errors:
                raise errors.exceptions[0] from None  # the others say the same

    def _client(self) -> "AsyncOpenAI":
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise UserError("OpenAIGenerator needs the openai package: pip install 'lit-pref[server]'") from error
        # Servers of one's own want no key, the package does.
        return AsyncOpenAI(
            base_url=self.base_url, api_key=self._key or "none", max_retries=self.retries, timeout=self.timeout
        )

    @property
    def _key(self) -> str | None:
        return self.api_key or os.environ.get("OPENAI_API_KEY")

    async def _several(
        self,
        client: "AsyncOpenAI",
        limit: asyncio.Semaphore,
        prompt: Text,
        samples: list[int],
        sampling: Sampling,
        stream: str,
    ) -> AsyncIterator[list[tuple[int, Completion]]]:
        """Samples of one prompt by their numbers, in one request where the server can.

        stream: what its seeds are made of.
        """
        left, greedy = samples, sampling.temperature == 0
        while left:
            async with limit:
                wanted = len(left) if self._takes_n and not greedy else 1
                settings = {"n": wanted, "seed": _seed(f"{stream}:{left[0]}")}
                got = await self._request(client, prompt, settings, sampling)
            if len(got) < wanted:
                self._takes_n = False
            drawn = list(zip(left, got * len(left) if greedy else got[:wanted], strict=False))
            yield drawn
            left = left[len(drawn) :]

    async def _request(
        self, client: "AsyncOpenAI", prompt: Text, settings: dict[str, int], sampling: Sampling
    ) -> list[Completion]:
        """The answers of one request; none where the server refuses to give several."""
        import openai

        endpoint = "/completions" if isinstance(prompt, str) else "/chat/completions"
        url = self.base_url.rstrip("/") + endpoint
        body = {
            "model": self.model,
            **({"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}),
            **settings,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            **({"stop": list(sampling.stop[:_STOPS])} if sampling.stop else {}),
        }
        if self.token_ids:
            body |= {"return_token_ids": True, "logprobs": 0 if isinstance(prompt, str) else True}
        try:
            answer = await client.post(endpoint, cast_to=object, body=body)
        except openai.APIStatusError as error:
            if error.status_code in _REFUSES_N and settings["n"] > 1:
                return []
            raise UserError(f"{url}: answered {error.status_code}: {self._said(error)}") from error
        except openai.APITimeoutError as error:
            raise UserError(f"{url}: no answer within {self.timeout:g} s, {self.retries} retries included") from error
        except openai.APIConnectionError as error:
            cause, again = str(error.__cause__ or "") or str(error), f"{self.retries} retries included"
            raise UserError(f"{url}: no connection ({cause}), {again}: does the server run?") from error
        except ValueError as error:
            raise UserError(f"{url}: the answer is no JSON: {error}") from error
        return [_stopped(each, sampling.stop) for each in self._read(url, answer)]

    def _said(self, error: Any) -> str:
        body = error.body
        message = str(body["message"] if isinstance(body, dict) and "message" in body else body or error.message)
        message = " ".join(message.split())[:_SHOWN]
        return message.replace(self._key, "***") if self._key else message  # some servers quote the key

    def _read(self, url: str, answer: object) -> list[Completion]:
        try:
            choices = answer["choices"]  # type: ignore[index]
            found = [self._completion(choice) for choice in choices]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{url}: expected an answer with choices, got {str(answer)[:_SHOWN]!r}") from error
        if not found:
            raise UserError(f"{url}: the answer holds no choice")
        if self.token_ids and not all(each.token_ids for each in found):
            raise UserError(f"{url}: the server gives no token ids, as vLLM from 0.10.2 does: set token_ids to false")
        return found

    def _completion(self, choice: dict[str, Any]) -> Completion:
        """An empty answer is a completion too."""
        text = choice["text"] if "text" in choice else choice["message"].get("content") or ""
        ids = tuple(choice.get("token_ids") or ()) if self.token_ids else ()
        logps = _logps(choice.get("logprobs") or {}) if ids else ()
        return Completion(text, ids, logps if len(logps) == len(ids) else (), choice.get("finish_reason") not in _CUT)


def _logps(logprobs: dict[str, Any]) -> tuple[float, ...]:
    """Those of /completions, or of /chat/completions."""
    if "token_logprobs" in logprobs:
        return tuple(logprobs["token_logprobs"])
    return tuple(token["logprob"] for token in logprobs.get("content") or ())


def _seed(stream: str) -> int:
    """31 bits: some servers keep a seed in a signed 32-bit integer."""
    return int.from_bytes(blake2b(stream.encode(), digest_size=4).digest(), "big") >> 1


def _stopped(completion: Completion, stop: Sequence[str]) -> Completion:
    """The completion up to the first of the texts; its tokens would go on."""
    places = [place for place in map(completion.text.find, stop) if place >= 0]
    return Completion(completion.text[: min(places)], (), (), finished=True) if places else completion
