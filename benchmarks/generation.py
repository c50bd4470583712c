"""Sampling speed of `LocalGenerator` against transformers' `generate`, same model, same prompts, same settings.

    python -m benchmarks.generation [--json FILE] [--runs 5] [--quick]
    python -m benchmarks.generation --model FOLDER --mbpp mbpp.jsonl [--dtype bfloat16] [--new_tokens 512]

Several samples of each prompt at temperature 1, of the embedded policy on its own task, or of a model of yours on
MBPP's training problems in its chat template. transformers runs at each of `--batch_sizes` first, and then at the best
of them. The figure is sampled tokens (EOS included) a second, the median of paired runs. What it shows depends on how
soon samples of a prompt part, and on how unlike they are in length: the embedded models are sure of most tokens, a
large model at temperature 1 parts at once.
"""

import argparse
import statistics
import time

import torch

from benchmarks import command
from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.generation import LocalGenerator
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.tasks import MBPP, CodeTask
from lit_pref.types import Sampling

SAMPLES = 8


def ours(model, tokenizer, prompts, new_tokens: int, seed: int) -> int:
    generator = LocalGenerator(model, tokenizer, tokenize_prompt)
    completions = generator.generate(prompts, SAMPLES, Sampling(max_new_tokens=new_tokens), seed)
    return sum(len(completion.token_ids) for several in completions for completion in several)


def transformers_generate(model, tokenizer, prompts, new_tokens: int, seed: int, side_by_side: int) -> int:
    torch.manual_seed(seed)
    tokens = 0
    # Sorted by length, as ours does, so that neither side pays for padding.
    ordered = sorted((list(tokenize_prompt(prompt, tokenizer)) for prompt in prompts), key=len)
    for start in range(0, len(ordered), max(1, side_by_side // SAMPLES)):
        batch = ordered[start : start + max(1, side_by_side // SAMPLES)]
        width = max(map(len, batch))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(each)) + each for each in batch])
        attended = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in batch])
        out = model.generate(
            input_ids=ids,
            attention_mask=attended,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            num_return_sequences=SAMPLES,
            max_new_tokens=new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        ends = torch.tensor(sorted(LocalGenerator(model, tokenizer, tokenize_prompt).stop_ids))
        is_end = torch.isin(out[:, width:], ends)
        tokens += int((is_end.cumsum(1) - is_end.long() == 0).sum())  # up to the first end, which counts
    return tokens


def rate(side, *arguments) -> float:
    start = time.perf_counter()
    tokens = side(*arguments)
    return tokens / (time.perf_counter() - start)


def main() -> None:
    arguments = command.parse(_parser())
    model, tokenizer = load_causal_lm(arguments.model, dtype=arguments.dtype), load_tokenizer(arguments.model)
    count = max(4, arguments.prompts // 4) if arguments.quick else arguments.prompts
    task = MBPP(source=arguments.mbpp, style="chat") if arguments.mbpp else CodeTask()
    prompts = [problem.prompt for problem in task.problems("train" if arguments.mbpp else "validation", count, seed=0)]
    given = model, tokenizer, prompts, arguments.new_tokens
    tried = {size: rate(transformers_generate, *given, 0, size) for size in arguments.batch_sizes}
    best = max(tried, key=tried.get)
    rate(ours, *given, 0)  # warms up
    pairs = [(rate(ours, *given, run), rate(transformers_generate, *given, run, best)) for run in range(arguments.runs)]
    figures = {
        "model": arguments.model.rpartition("/")[2],
        "dtype": arguments.dtype,
        "ours_tokens_per_second": statistics.median(ours for ours, _ in pairs),
        "transformers_tokens_per_second": statistics.median(theirs for _, theirs in pairs),
        "transformers_by_batch_size": tried,
        "ratio": statistics.median(ours / theirs for ours, theirs in pairs),
        "runs": len(pairs),
        "threads": torch.get_num_threads(),
        "machine": f"{command.machine()}, torch {torch.__version__}",
    }
    print(f"{count} prompts x {SAMPLES} samples of up to {arguments.new_tokens} tokens, {figures['model']}, "
          f"{figures['dtype']}, {figures['machine']}, {figures['threads']} threads")  # fmt: skip
    print(f"LocalGenerator         {figures['ours_tokens_per_second']:>10,.0f} tokens/s")
    print(f"transformers generate  {figures['transformers_tokens_per_second']:>10,.0f} tokens/s, {best} side by side")
    print(f"ratio                  {figures['ratio']:>10.1f}")
    command.write_json(arguments.json, figures)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__)
    parser.add_argument("--model", default="embedded:coder", help="a model folder or hub id")
    parser.add_argument("--mbpp", help="MBPP's file of rows, whose problems are the prompts")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--prompts", type=int, default=256, help="how many; a quarter of them with --quick")
    parser.add_argument("--new_tokens", type=int, default=96, help="at most, of a sample")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1024], help="that transformers is tried with")
    return parser


if __name__ == "__main__":
    main()
