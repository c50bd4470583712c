"""A `.gguf` file as model folders: unpacked once by transformers, kept in the user's cache folder, found again.

Such a file holds a model's weights, mostly rounded to few bits, its tokenizer and its chat template. transformers reads
it in minutes, most of them for its vocabulary, and a command may open a policy several times: what it made is kept as
an ordinary folder, its tokenizer apart from its weights, and these once for each precision. Only the file counts, never
what lies beside it. Not covered: files in several parts, and rope scaling that transformers
leaves out, but for Llama 3's.
"""

import copy
import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from lit_pref.errors import UserError
from lit_pref.machine.hub import hub_is_out_of_reach
from lit_pref.storage.arrays import default_cache_folder
from lit_pref.storage.files import provenance_digest, publishing, remove_orphans
from lit_pref.types import Dtype

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import GenerationConfig, PreTrainedConfig

Made = TypeVar("Made")
SUFFIX = ".gguf"
TOKENIZER: Literal["tokenizer"] = "tokenizer"
Part = Literal["tokenizer"] | Dtype
"""The tokenizer with the model's config, or the model with its weights in a precision."""

# Tensors of factors that rope's frequencies are divided by; transformers passes over them.
_FACTORS = "rope_freqs.weight"
_ROPE_TENSORS = (_FACTORS, "rope_factors_long.weight", "rope_factors_short.weight")
# Of Llama 3.1, 3.2 and 3.3 alike; only the factor differs.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# EOS, and the ends of a turn and of a message that a file may name beside it.
_END_IDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def gguf_file(name: str) -> Path:
    """The file of a name that ends in .gguf: on this machine, or OWNER/REPOSITORY/FILE of the hub.

    Raises UserError where there is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if name.startswith((".", "/", "~")) or not (owner and repository and file):
        raise UserError(f"no file {name!r}; expected a .gguf file, or OWNER/REPOSITORY/FILE.gguf of the hub")
    from transformers.utils.hub import cached_file

    try:
        fetched = cached_file(f"{owner}/{repository}", file, local_files_only=hub_is_out_of_reach())
    except OSError as error:
        raise UserError(
            f"no file {name!r}, and {file!r} of the hub's {owner}/{repository} could not be fetched (offline, "
            f"misspelt, or gated?): {_first_line(error)}"
        ) from error
    return Path(fetched)


def unpacked(file: Path, part: Part) -> Path:
    """The folder of a file's tokenizer, or of its weights in a precision; made where it is not there yet.

    Raises UserError where the extra is missing, where the file is none, damaged, or one that transformers cannot read,
    and where the cache folder cannot be written.
    """
    import transformers
    from filelock import FileLock

    stat = file.stat()
    made_of = [str(file.resolve()), stat.st_size, stat.st_mtime_ns, transformers.__version__]
    folder = default_cache_folder() / "gguf" / f"{file.stem[:40]}-{provenance_digest(made_of)}"
    if (folder / part).is_dir():
        return folder / part
    if any(find_spec(package) is None for package in ("gguf", "accelerate")):
        raise UserError(f"{file}: reading a .gguf file needs two more packages: pip install 'lit-pref[gguf]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # the processes of a run open it at once
            remove_orphans(folder)
            for each in dict.fromkeys((TOKENIZER, part)):
                if not (folder / each).is_dir():
                    what = "tokenizer" if each == TOKENIZER else f"weights in {each}"
                    print(f"{file.name}: unpacking its {what}, once, to {folder / each}", file=sys.stderr, flush=True)
                    # transformers' own bars are for terminals
                    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
                        _unpack(file, each, folder)
    except OSError as error:
        raise UserError(
            f"{file} cannot be unpacked to {folder} ({error.strerror or error}): make room, or name another cache "
            "folder by LIT_PREF_CACHE"
        ) from error
    return folder / part


def _unpack(file: Path, part: Part, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    with tempfile.TemporaryDirectory() as alone, publishing(folder / part) as temporary:
        (Path(alone) / "model.gguf").symlink_to(file.resolve())  # transformers also takes what lies beside a file
        source: dict[str, Any] = {"pretrained_model_name_or_path": alone, "gguf_file": "model.gguf"}
        if part == TOKENIZER:
            reader = _reader(file)
            architecture = _field(reader, "general.architecture")
            config = _made(file, f"the architecture {architecture!r}", lambda: AutoConfig.from_pretrained(**source))
            _scale_rope(file, reader, config)
            kind = f"a tokenizer of the kind {_field(reader, 'tokenizer.ggml.model')!r}"
            _made(file, kind, lambda: AutoTokenizer.from_pretrained(**source)).save_pretrained(temporary)
            config.save_pretrained(temporary)
            _generation(reader, config).save_pretrained(temporary)
        else:
            config = AutoConfig.from_pretrained(folder / TOKENIZER)
            options = source | {"config": config, "dtype": getattr(torch, part)}
            options["quantization_config"] = GgufConfig(dequantize=True)  # else no adapter goes on it, and no saving
            model = _made(file, "its weights", lambda: AutoModelForCausalLM.from_pretrained(**options))
            model.generation_config = GenerationConfig.from_pretrained(folder / TOKENIZER)
            model.save_pretrained(temporary)


def _made(file: Path, what: str, make: Callable[[], Made]) -> Made:
    """What transformers makes of a file. Raises UserError for whatever it raises."""
    import transformers

    try:
        return make()
    except Exception as error:  # files meet its code, made for known models, with errors of every kind
        raise UserError(
            f"{file}: transformers {transformers.__version__} cannot read {what} from a .gguf file "
            f"({_first_line(error)}): give the model as a transformers folder"
        ) from error


def _reader(file: Path) -> "GGUFReader":
    """The file's fields and tensors. Raises UserError for one that is none, damaged, or a part of several."""
    from gguf import GGUFReader

    with file.open("rb") as stream:
        start = stream.read(4)
    if start != b"GGUF":
        raise UserError(f"{file} is no GGUF file: it begins with {start!r}, expected b'GGUF'")
    try:
        reader = GGUFReader(file)
        parts = _field(reader, "split.count") or 1
    except Exception as error:  # numpy and struct meet what is missing with errors of every kind
        raise UserError(
            f"{file} is damaged or was cut short, at {file.stat().st_size:,} bytes ({_first_line(error)}): copy or "
            "download it again"
        ) from error
    if parts > 1:
        raise UserError(f"{file} is one of {parts} parts: join them with llama.cpp's llama-gguf-split --merge")
    return reader


def _field(reader: "GGUFReader", name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _scale_rope(file: Path, reader: "GGUFReader", config: "PreTrainedConfig") -> None:
    """Give the config the rope scaling that the file states, where it is that of Llama 3.1 and its successors.

    Raises UserError for another one that the config lacks: every log-prob would be off.
    """
    factors_F = next((torch.tensor(tensor.data) for tensor in reader.tensors if tensor.name == _FACTORS), None)
    longer = config.max_position_embeddings > _LLAMA3["original_max_position_embeddings"]
    if longer and factors_F is not None and (scaled := _llama3_rope(config, factors_F)) is not None:
        config.rope_parameters = scaled.rope_parameters
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (parameters, *parameters.values()) if isinstance(each, dict)}
    stated = [tensor.name for tensor in reader.tensors if tensor.name in _ROPE_TENSORS]
    scaling = _field(reader, f"{_field(reader, 'general.architecture')}.rope.scaling.type")
    stated += [] if scaling in (None, "none") else [f"rope.scaling.type {scaling!r}"]
    if stated and kinds <= {None, "default"}:
        raise UserError(
            f"{file}: states rope scaling ({', '.join(stated)}), which transformers leaves out of what it reads from a "
            ".gguf file: give the model as a transformers folder"
        )


def _llama3_rope(config: "PreTrainedConfig", factors_F: torch.Tensor) -> "PreTrainedConfig | None":
    """A copy of the config with the scaling that gives these factors, one a frequency; None where there is none."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = copy.deepcopy(config)
    scaled.rope_parameters |= {"rope_type": "llama3", "factor": float(factors_F.max()), **_LLAMA3}
    plain_F = config.rope_parameters["rope_theta"] ** -(torch.arange(len(factors_F)) / len(factors_F))
    found_F, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, device=torch.device("cpu"))
    fits = found_F.shape == plain_F.shape and torch.allclose(plain_F / found_F, factors_F.float(), rtol=1e-3)
    return scaled if fits else None


def _generation(reader: "GGUFReader", config: "PreTrainedConfig") -> "GenerationConfig":
    """What ends a completion: all ends that the file names."""
    from transformers import GenerationConfig

    generation: GenerationConfig = GenerationConfig.from_model_config(config)
    ends = [_field(reader, name) for name in _END_IDS]
    generation.eos_token_id = list(dict.fromkeys(end for end in ends if end is not None)) or None
    return generation


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
