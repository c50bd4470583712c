"""What the benchmarks train on: real text of the standard library, random weights of a given shape.

A workload is a folder that both sides load by their own code: `model/` (config, safetensors, tokenizer) and
`pairs.parquet` (`prompt`, `chosen`, `rejected` as text). Nothing is fetched.
"""

import ast
import itertools
import random
import sysconfig
import tokenize as python_source
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lit_pref.data.formats.pairs import read_pairs
from lit_pref.data.formats.write import without_tokens, write_pairs
from lit_pref.data.tokens.encoding import rendering
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.tasks import CodeTask
from lit_pref.types import PreferencePair

_VOCABULARY = 4096  # the tokenizer's; a model may have a larger vocabulary than that

ADDED_TOKENS = 1  # what a Qwen2 tokenizer adds to the vocabulary that it is opened with


@dataclass(frozen=True)
class Shape:
    """A Qwen2-style model: 5.8M parameters by default."""

    vocab_size: int = _VOCABULARY
    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2


@dataclass(frozen=True)
class Workload:
    """Pairs and the model that is trained on them."""

    name: str
    shape: Shape
    batch_size: int
    steps: int  # of a timed run, at `batch_size` pairs each


DOCSTRINGS = Workload("docstrings", Shape(), batch_size=8, steps=5)
LONG_PROMPTS = Workload("long_prompts", Shape(), batch_size=4, steps=3)
LARGE_VOCABULARY = Workload("vocabulary_152k", Shape(vocab_size=151_936), batch_size=2, steps=3)
EMBEDDED = Workload("embedded", Shape(), batch_size=32, steps=4)
GPU = Workload(
    "qwen2_1.5b", Shape(151_936, 1536, 8960, layers=28, heads=12, key_value_heads=2), batch_size=16, steps=12
)
ALL = (DOCSTRINGS, LONG_PROMPTS, LARGE_VOCABULARY, EMBEDDED)


def new_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Cuts words as the embedded models' tokenizer does, with the merges of other texts."""
    embedded: PreTrainedTokenizerFast = load_tokenizer("embedded:coder")
    return embedded.train_new_from_iterator(texts, vocab_size)


def materialize(workload: Workload, folder: Path, pairs: int, seed: int = 0) -> Path:
    """Write a workload's folder; a function of its arguments and of the standard library at hand."""
    folder.mkdir(parents=True)
    if workload is EMBEDDED:
        write_pairs(folder / "pairs.parquet", embedded_pairs(pairs, seed))
        load_causal_lm("embedded:coder").save_pretrained(folder / "model")
        load_tokenizer("embedded:coder").save_pretrained(folder / "model")
        return folder
    functions = list(mined_functions())
    trained = new_tokenizer((prompt + body for prompt, body in functions), _VOCABULARY - ADDED_TOKENS)
    save_model(workload.shape, trained, folder / "model", seed)
    tokenizer = load_tokenizer(str(folder / "model"))  # a Qwen2 tokenizer from here on, which cuts words its own way
    make = long_prompt_pairs if workload is LONG_PROMPTS else docstring_pairs
    write_pairs(folder / "pairs.parquet", make(functions, tokenizer, pairs, seed))
    return folder


def of_model(model: Path, pairs: Path, folder: Path, count: int, seed: int = 0) -> Path:
    """Write the folder of a model that there is, and of pairs of a file that come next to each other by a seed.

    Conversations are written out by the model's template, so that both sides tokenize the same text.
    """
    folder.mkdir(parents=True)
    (folder / "model").symlink_to(model.resolve(), target_is_directory=True)
    tokenizer = load_tokenizer(str(model))
    records = list(read_pairs(str(pairs)).records)
    random.Random(seed).shuffle(records)
    written = [_as_text(pair, tokenizer) for pair in records[:count]]
    write_pairs(folder / "pairs.parquet", list(itertools.islice(itertools.cycle(written), count)))
    return folder


def _as_text(pair: PreferencePair, tokenizer: Any) -> PreferencePair:
    if isinstance(pair.prompt, str):
        return without_tokens(pair)
    chosen, rejected = (side[0]["content"] for side in (pair.chosen, pair.rejected) if not isinstance(side, str))
    return PreferencePair(rendering(pair.prompt, tokenizer, generation_prompt=True), chosen, rejected)


def useful_flops_per_token(folder: Path, rewards: bool = False, frozen: bool = False) -> float:
    """Floating-point operations that training needs for each counted token (prompts counted twice).

    6 for each weight and token that passes it once, a multiplication and an addition forward and twice that backward,
    4 where weights are frozen under an adapter, whose own few are left out:
    prompts pass the layers once, completion tokens alone meet the head, and the last layer gives keys and values of
    all tokens, everything else where log-probs are read (rewards: at the last tokens alone, and no head). Attention's
    products come on top. What is computed again (a head's logits in the backward pass) is not useful and does not
    count.
    """
    config = AutoConfig.from_pretrained(folder / "model")
    width, head_width = config.hidden_size, config.hidden_size // config.num_attention_heads
    keys_and_values = 2 * width * config.num_key_value_heads * head_width
    layer = keys_and_values + 2 * width * width + 3 * width * config.intermediate_size
    tokenizer = load_tokenizer(str(folder / "model"))
    weights = looks = counted = 0.0
    for tree in tokenize(read_pairs(folder / "pairs.parquet").records, tokenizer).trees:
        prompt, lengths = len(tree.prompt_ids), [len(ids) for ids in tree.completion_ids]
        read = len(lengths) if rewards else sum(lengths)
        last_layer = keys_and_values * tree.shared_length + (layer - keys_and_values) * read
        head = 0 if rewards else config.vocab_size * width * read
        weights += (config.num_hidden_layers - 1) * layer * tree.shared_length + last_layer + head
        of_completions = [length * prompt + length**2 / 2 for length in lengths]
        of_read = [prompt + length for length in lengths] if rewards else of_completions
        looks += (config.num_hidden_layers - 1) * (prompt**2 / 2 + sum(of_completions)) + sum(of_read)
        counted += tree.repeated_length
    return ((4 if frozen else 6) * weights + 6 * 2 * width * looks) / counted


def save_model(shape: Shape, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int = 0) -> None:
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def mined_functions() -> Iterator[tuple[str, str]]:
    """(docstring and signature, the function's body) of every documented function of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
            continue
        try:
            with python_source.open(path) as stream:
                source = stream.read()
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):  # kept there for tests of the parser
            continue
        lines = source.splitlines(keepends=True)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and len(node.body) > 1 and ast.get_docstring(node):
                yield _prompt_and_body(node, lines)


def _prompt_and_body(node: ast.FunctionDef, lines: list[str]) -> tuple[str, str]:
    documentation = node.body[0]
    header = "".join(lines[node.lineno - 1 : documentation.lineno - 1])
    body = "".join(lines[documentation.end_lineno : node.end_lineno])
    return f'"""{ast.get_docstring(node)}"""\n{header}', body


def docstring_pairs(
    functions: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, count: int, seed: int
) -> list[PreferencePair]:
    """A documented signature, its own body as chosen, that of another function as rejected."""
    usable = [
        (prompt, body)
        for prompt, body in functions
        if len(tokenizer(prompt)["input_ids"]) <= 128 and 48 <= len(tokenizer(body)["input_ids"]) <= 512
    ]
    random.Random(seed).shuffle(usable)
    made = [
        PreferencePair(prompt, chosen, rejected)
        for (prompt, chosen), (_, rejected) in zip(usable, usable[1:] + usable[:1], strict=True)
        if chosen != rejected
    ]
    return [made[index % len(made)] for index in range(count)]


def long_prompt_pairs(
    functions: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, count: int, seed: int
) -> list[PreferencePair]:
    """Prompts of 1,024 tokens with two continuations of 127 each (128 with EOS), cut out of the running text."""

    def encoded(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    ids = encoded("".join(prompt + body for prompt, body in functions))
    choose = random.Random(seed)
    made = []
    while len(made) < count:
        start, other = (choose.randrange(len(ids) - 2000) for _ in range(2))
        pieces = ids[start : start + 1024], ids[start + 1024 : start + 1151], ids[other : other + 127]
        prompt, *sides = map(tokenizer.decode, pieces)
        # TRL tokenizes prompt and side together: only where that changes nothing do both train on the same tokens.
        if all(encoded(prompt + side) == encoded(prompt) + encoded(side) for side in sides):
            made.append(PreferencePair(prompt, *sides))
    return made


def embedded_pairs(count: int, seed: int) -> list[PreferencePair]:
    """The embedded task's references, each against that of another problem."""
    problems = CodeTask().problems("train", count + 1, seed)
    return [PreferencePair(a.prompt, a.reference, b.reference) for a, b in itertools.pairwise(problems)]
