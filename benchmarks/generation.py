"""Sampling speed of `LocalGenerator` against transformers' `generate`, same model, same prompts, same settings.

    python -m benchmarks.generation [--json FILE] [--runs 5] [--quick]

Several samples of each prompt at temperature 1. Both sides decode the same number of sequences side by side; the
figure is sampled tokens (EOS included) a second, the median of paired runs. What it shows depends on how soon samples
of a prompt part: the embedded models are sure of most tokens, a large model at temperature 1 parts at once.
"""

import statistics
import time

import torch

from benchmarks import command
from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.generation import LocalGenerator
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.tasks import CodeTask
from lit_pref.types import Sampling

POLICY, PROMPTS, SAMPLES, NEW_TOKENS, SIDE_BY_SIDE = "embedded:coder", 256, 8, 96, 1024


def ours(model, tokenizer, prompts: list[str], seed: int) -> int:
    generator = LocalGenerator(model, tokenizer, tokenize_prompt, SIDE_BY_SIDE)
    completions = generator.generate(prompts, SAMPLES, Sampling(max_new_tokens=NEW_TOKENS), seed)
    return sum(len(completion.token_ids) for several in completions for completion in several)


def transformers_generate(model, tokenizer, prompts: list[str], seed: int) -> int:
    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    tokens = 0
    # Sorted by length, as ours does, so that neither side pays for padding.
    ordered = sorted(prompts, key=lambda prompt: len(tokenizer(prompt)["input_ids"]))
    for start in range(0, len(ordered), SIDE_BY_SIDE // SAMPLES):
        batch = tokenizer(ordered[start : start + SIDE_BY_SIDE // SAMPLES], return_tensors="pt", padding=True)
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            top_k=0,
            num_return_sequences=SAMPLES,
            max_new_tokens=NEW_TOKENS,
        )
        new = out[:, batch["input_ids"].shape[1] :]
        tokens += int((new != tokenizer.pad_token_id).sum())
    return tokens


def rate(side, *arguments) -> float:
    start = time.perf_counter()
    tokens = side(*arguments)
    return tokens / (time.perf_counter() - start)


def main() -> None:
    arguments = command.parse(command.parser(__doc__))
    count = PROMPTS // 4 if arguments.quick else PROMPTS
    model, tokenizer = load_causal_lm(POLICY), load_tokenizer(POLICY)
    prompts = [problem.prompt for problem in CodeTask().problems("validation", count, seed=0)]
    pairs = []
    for run in range(arguments.runs + 1):
        sides = [rate(side, model, tokenizer, prompts, run) for side in (ours, transformers_generate)]
        if run:  # the first warms up
            pairs.append(sides)
    figures = {
        "ours_tokens_per_second": statistics.median(ours for ours, _ in pairs),
        "transformers_tokens_per_second": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ours / theirs for ours, theirs in pairs),
        "runs": len(pairs),
        "threads": torch.get_num_threads(),
        "machine": f"{command.machine()}, torch {torch.__version__}",
    }
    print(f"{count} prompts x {SAMPLES} samples, {POLICY}, {figures['machine']}, {figures['threads']} threads")
    print(f"LocalGenerator         {figures['ours_tokens_per_second']:>10,.0f} tokens/s")
    print(f"transformers generate  {figures['transformers_tokens_per_second']:>10,.0f} tokens/s")
    print(f"ratio                  {figures['ratio']:>10.1f}")
    command.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
