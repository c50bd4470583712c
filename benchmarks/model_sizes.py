"""Memory and time of a model by its shape, from what `own_model.py` measured of another.

What a work takes is its operations over the share of the machine's matrix products that the measured model reached.
Memory is weights, gradients and Adam's two moments (4 bytes each), and what a step holds for each token, layer and
width. Not covered: attention's products, which count from some thousand tokens on; mixtures of experts.
"""

from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from benchmarks.dpo_vs_trl import ADAPTER
from lit_pref.types import Dtype

BATCH = 4  # pairs that memory is told for
PROMPT, RESPONSE = 200, 200  # tokens of the pairs and completions that times are given for
PAIR = PROMPT + 2 * RESPONSE  # a prompt is laid down once
COUNTED = 2 * PROMPT + 2 * RESPONSE  # tokens of a pair as rates count them


class Shape(NamedTuple):
    """What counts of an architecture; widths in numbers, of a Llama- or Qwen2-like model."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    tied: bool

    @property
    def linear(self) -> int:
        """Weights of a layer's matrices."""
        attention = 2 * self.width * self.head_width * (self.heads + self.key_value_heads)
        return attention + 3 * self.width * self.inner

    @property
    def head(self) -> int:
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        return self.layers * self.linear + (1 if self.tied else 2) * self.head

    @property
    def adapter(self) -> int:
        """Weights of LoRA on all matrices of the layers."""
        of_heads = (
            self.head_width * (self.heads + 2 * self.key_value_heads) + 4 * self.width + self.head_width * self.heads
        )
        return ADAPTER.r * self.layers * (of_heads + 3 * (self.width + self.inner))

    def pair_flops(self, passes: int) -> float:
        """Of a pair, without attention's products.

        passes: 2 forward alone, 4 with the backward pass under an adapter, 6 with that of all weights.
        """
        return passes * (self.layers * self.linear * PAIR + self.head * 2 * RESPONSE)

    def cache_bytes(self, held: int) -> int:
        """Keys and values of a token, in numbers of so many bytes."""
        return 2 * self.layers * self.key_value_heads * self.head_width * held


def shape_of(folder: Path) -> Shape:
    config = AutoConfig.from_pretrained(folder)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads, config.num_key_value_heads, head_width
    sizes = config.vocab_size, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return Shape(*sizes, *heads, config.tie_word_embeddings)


# From their published config.json.
SIZES = {
    "SmolLM2-135M": Shape(49_152, 576, 1_536, 30, 9, 3, 64, True),
    "Qwen2.5-0.5B": Shape(151_936, 896, 4_864, 24, 14, 2, 64, True),
    "Qwen2.5-1.5B": Shape(151_936, 1_536, 8_960, 28, 12, 2, 128, True),
    "Qwen2.5-3B": Shape(151_936, 2_048, 11_008, 36, 16, 2, 128, True),
    "Llama-3.1-8B": Shape(128_256, 4_096, 14_336, 32, 32, 8, 128, False),
}


class Measured(NamedTuple):
    """rate: tokens a second; share: of the machine's matrix products then; peak_bytes: of a step's process.

    held: bytes a token, layer and width of a step, beside weights, gradients and moments.
    """

    rate: float
    share: float
    peak_bytes: int
    held: float


def static_bytes(shape: Shape, dtype: Dtype, full: bool) -> int:
    """Weights, gradients and Adam's moments."""
    if full:
        return 16 * shape.weights
    return (2 if dtype == "bfloat16" else 4) * shape.weights + 16 * shape.adapter


def estimates(measured: dict[str, Measured], gflops: dict[str, float]) -> list[list[str]]:
    """Memory in GB and hours, of each size: 1,000 pairs of DPO, 1,000 completions sampled.

    measured: of the largest model; gflops: of matrix products, by dtype. Where training of all weights was not
    measured, it is taken to reach the share and to hold the tokens of LoRA in fp32.
    """
    if "lora float32" in measured:
        measured = {"full float32": measured["lora float32"]} | measured
    rows = [["model", "weights", "full fp32 GB", "LoRA fp32 GB", "LoRA bf16 GB", "sampling bf16 GB"]]
    rows[0] += ["full h", "LoRA fp32 h", "LoRA bf16 h", "sampling fp32 h", "sampling bf16 h"]
    for name, shape in SIZES.items():
        memory = [_memory(shape, measured, *each) for each in (("full", "float32"), *(("lora", d) for d in DTYPES))]
        held = 2 * shape.weights + 64 * (PROMPT + RESPONSE) * shape.cache_bytes(2)
        times = [
            _hours(shape.pair_flops(passes + 2), measured.get(f"{work} {dtype}"), gflops[dtype])
            for work, passes, dtype in (("full", 6, "float32"), *(("lora", 4, d) for d in DTYPES))
        ]
        drawn = 2 * (shape.layers * shape.linear * (PROMPT / 8 + RESPONSE) + shape.head * RESPONSE)
        times += [_hours(drawn, measured.get(f"sampling {dtype}"), gflops[dtype]) for dtype in DTYPES]
        cells = [_cell(each) for each in (*memory, held / 1e9, *times)]
        rows.append([name, f"{shape.weights / 1e9:.2f}B", *cells])
    return rows


DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


def _memory(shape: Shape, measured: dict[str, Measured], work: str, dtype: Dtype) -> float | None:
    found = measured.get(f"{work} {dtype}")
    if found is None:
        return None
    held = found.held * BATCH * COUNTED * shape.layers * shape.width
    return (static_bytes(shape, dtype, work == "full") + held) / 1e9


def _hours(flops: float, found: Measured | None, gflops: float) -> float | None:
    return None if found is None or not gflops else 1000 * flops / (found.share * gflops * 1e9) / 3600


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"
