"""The calls that vLLM gets, and what of its answers becomes a completion: against a stand-in with vLLM's interface."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.generation import VLLMGenerator
from lit_pref.generation import vllm as vllm_module
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.types import Completion, Sampling

MODEL = str(EMBEDDED_FOLDER / "tokenizer")  # a folder with a tokenizer is all that is read here


@dataclass
class SamplingParams:
    """Those of vLLM's that are used; another name would be refused, as there."""

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    logprobs: int
    stop: list[str]


class Engine:
    """`vllm.LLM`: answers each prompt with its first token and EOS, and remembers what it was asked."""

    made: ClassVar[list["Engine"]] = []

    def __init__(
        self, *, model: str, tensor_parallel_size: int, gpu_memory_utilization: float, max_model_len: int | None
    ) -> None:
        self.settings = (model, tensor_parallel_size, gpu_memory_utilization, max_model_len)
        self.asked: list[tuple[list[int], SamplingParams]] = []
        Engine.made.append(self)

    def generate(self, prompts: list[Any], params: list[SamplingParams], *, use_tqdm: bool) -> list[SimpleNamespace]:
        assert use_tqdm is False
        self.asked += [(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, params, strict=True)]
        return [
            SimpleNamespace(outputs=[self._output(prompt["prompt_token_ids"][0], i) for i in range(each.n)])
            for prompt, each in zip(prompts, params, strict=True)
        ]

    def _output(self, first: int, number: int) -> SimpleNamespace:
        ids = [first, 0]
        logprobs = [{token: SimpleNamespace(logprob=-0.5 * (place + 1), rank=1)} for place, token in enumerate(ids)]
        finish = "stop" if number == 0 else "length"
        return SimpleNamespace(text=f"#{number}", token_ids=ids, logprobs=logprobs, finish_reason=finish)


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(Engine, "made", [])


def test_prompts_go_in_as_the_tokens_of_training_and_sampled_tokens_come_out() -> None:
    generator = VLLMGenerator(MODEL, tensor_parallel_size=2, gpu_memory_utilization=0.5, max_model_len=99)
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=5, stop=("\n#",))
    found = generator.generate(["def f", "x"], 2, sampling, seed=3)
    (engine,) = Engine.made
    assert engine.settings == (MODEL, 2, 0.5, 99)
    tokenizer = load_tokenizer(MODEL)
    prompts = [list(tokenize_prompt(prompt, tokenizer)) for prompt in ("def f", "x")]
    # samples of a prompt take its seed and the next one: 3 · 1,000,003 + 0, 1 and + 2, 3
    seeds = (3_000_009, 3_000_011)
    assert engine.asked == [
        (ids, SamplingParams(n=2, temperature=0.7, top_p=0.9, max_tokens=5, seed=seed, logprobs=0, stop=["\n#"]))
        for ids, seed in zip(prompts, seeds, strict=True)
    ]
    assert found == [
        [Completion("#0", (ids[0], 0), (-0.5, -1.0), True), Completion("#1", (ids[0], 0), (-0.5, -1.0), False)]
        for ids in prompts
    ]


def test_the_engine_is_started_once() -> None:
    generator = VLLMGenerator(MODEL)
    for seed in range(2):
        generator.generate(["a"], 1, Sampling(), seed)
    assert len(Engine.made) == 1


def test_greedy_is_drawn_once_and_copied() -> None:
    ((first, second),) = VLLMGenerator(MODEL).generate(["a"], 2, Sampling(temperature=0.0), 0)
    assert first == second
    assert [params.n for _, params in Engine.made[0].asked] == [1]


def test_what_is_done_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_module, "_AT_ONCE", 2)
    generator, prompts = VLLMGenerator(MODEL), ["a", "b", "c", "d"]
    whole = generator.generate(prompts, 2, Sampling(), seed=1)
    asked = Engine.made[0].asked[:]
    Engine.made[0].asked.clear()
    drawn = generator.each(prompts, 2, Sampling(), 1, done={(1, 0), (1, 1), (2, 0)})
    assert next(drawn) == (0, 0, whole[0][0])
    assert Engine.made[0].asked == [asked[0], asked[2]]  # two prompts a call, seeded as without the ones that are done
    assert [(row, sample) for row, sample, _ in drawn] == [(0, 1), (2, 1), (3, 0), (3, 1)]
    assert Engine.made[0].asked[2:] == asked[3:]


def test_without_vllm_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="needs vLLM, which wants a GPU: pip install vllm"):
        VLLMGenerator(MODEL).generate(["a"], 1, Sampling(), 0)


def test_where_it_runs_makes_no_other_samples() -> None:
    assert VLLMGenerator("m", tensor_parallel_size=2, gpu_memory_utilization=0.5) == VLLMGenerator("m")
    assert VLLMGenerator("m", max_model_len=8) != VLLMGenerator("m")
