"""Completions from vLLM in this process, for models that need its speed or several GPUs.

Prompts go in as the very tokens that training uses, and the sampled tokens come out, EOS included.
Not run by this kit's tests, which have no vLLM: they hold it to the interface of vLLM 0.10 and newer (`LLM.generate`,
`SamplingParams`, `CompletionOutput`). There log-probs are the model's own, before temperature and top_p.
Not covered: embedded models (export them first), adapters, weights that change while it runs.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.models import load_tokenizer
from lit_pref.types import Completion, Drawn, Generator, Sampling, Text

_AT_ONCE = 256  # prompts of a call whose completions are kept before the next: what an interruption costs


@dataclass
class VLLMGenerator(Generator):
    """Samples from an engine that is started at the first call and kept.

    Fields that do not compare change where it runs, not what it samples.

    Args:
        model: a folder or a hub id.
        tensor_parallel_size: GPUs that share the model.
        gpu_memory_utilization: the share of each GPU's memory that vLLM takes.
        max_model_len: the longest prompt and completion together, in tokens; None is the model's own.
    """

    model: str
    tensor_parallel_size: int = field(default=1, compare=False)
    gpu_memory_utilization: float = field(default=0.9, compare=False)
    max_model_len: int | None = None

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order, seeded; greedy decoding makes one and copies it."""
        return self._answers(prompts, range(len(prompts)), samples, sampling, seed)

    def each(
        self,
        prompts: Sequence[Text],
        samples: int,
        sampling: Sampling,
        seed: int,
        done: Collection[tuple[int, int]] = (),
    ) -> Iterator[Drawn]:
        """As `Generator.each`; some hundred prompts go to the engine at once."""
        left = sorted({(row, sample) for row in range(len(prompts)) for sample in range(samples)} - set(done))
        rows = list(dict.fromkeys(row for row, _ in left))
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            made = dict(zip(some, self._answers(prompts, some, samples, sampling, seed), strict=True))
            yield from (Drawn(row, sample, made[row][sample]) for row, sample in left if row in made)

    def _answers(
        self, prompts: Sequence[Text], rows: Sequence[int], samples: int, sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        """Those of some of the prompts, by their places."""
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        distinct = 1 if sampling.temperature == 0 else samples  # vLLM refuses several greedy ones
        settings = [
            self._vllm.SamplingParams(
                n=distinct,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                # Samples of a prompt get this seed and the next ones, so prompts stay that far apart.
                seed=seed * 1_000_003 + row * distinct,
                logprobs=0,  # of the sampled token only
                stop=list(sampling.stop),
            )
            for row in rows
        ]
        encoded = [{"prompt_token_ids": list(tokenize_prompt(prompts[row], self._tokenizer))} for row in rows]
        outputs = self._engine.generate(encoded, settings, use_tqdm=False)
        return [[_completion(each) for each in output.outputs] * (samples // distinct) for output in outputs]

    @cached_property
    def _vllm(self) -> Any:
        try:
            return import_module("vllm")
        except ImportError as error:
            raise UserError("VLLMGenerator needs vLLM, which wants a GPU: pip install vllm") from error

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    @cached_property
    def _engine(self) -> Any:
        return self._vllm.LLM(
            model=self.model,
            tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            max_model_len=self.max_model_len,
        )


def _completion(output: Any) -> Completion:
    ids = tuple(output.token_ids)
    logps = tuple(at[token].logprob for token, at in zip(ids, output.logprobs, strict=True))
    return Completion(output.text, ids, logps, output.finish_reason == "stop")
