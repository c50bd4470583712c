"""Load causal language models and tokenizers by name: the kit's own tiny ones, a folder, a .gguf file, or a hub id.

Only safetensors and .gguf files (`gguf`) are read and no code from a model's folder is run. `from_pretrained` returns
models in eval mode and Lightning leaves them so: whether dropout is on is decided by the module that trains. Not
covered: weights that stay quantized, encoder-decoder models; adapters stand in `adapters`.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.machine.hub import hub_is_out_of_reach
from lit_pref.models.gguf import SUFFIX, TOKENIZER, gguf_file, unpacked
from lit_pref.types import Dtype

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED_PREFIX = "embedded:"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# Keys of a config which say nothing about what the weights compute.
_BOOKKEEPING = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model name, folder, .gguf file or hub id.

    A tokenizer without a pad token gets EOS for it: batches tell padding by its place, never by its id.
    Raises UserError for an unknown name, a folder without a tokenizer, a hub that cannot be reached, and for a
    tokenizer with neither pad nor EOS token.
    """
    source = _resolve(name, TOKENIZER)
    if isinstance(source, Path) and not any((source / file).is_file() for file in _TOKENIZER_FILES):
        raise _incomplete(source, "a tokenizer", _TOKENIZER_FILES)
    from transformers import AutoTokenizer

    with quiet_transformers(), _hub_errors(name, source, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(source), trust_remote_code=False, local_files_only=_without_hub(source)
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {name!r} has neither a pad nor an EOS token: completions need an end")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(
    name: str,
    random_init: bool = False,
    seed: int = 0,
    dtype: Dtype = "float32",
    needs_lm_head: bool = True,
) -> "PreTrainedModel":
    """The model of an embedded name (`embedded:coder`), a local folder, a .gguf file or a hub id, in eval mode.

    dtype: of its weights, whatever they are stored in.
    random_init: build it only from its config.json, with fresh weights, a function of `seed`; the global random state
        stays as it was.
    needs_lm_head: False also takes weights without one, as those of a reward model; it is then of no use.
    Raises UserError for an unknown name, a folder without config.json or safetensors, weights which leave parameters
    unset or do not fit the config, and a hub that cannot be reached.
    """
    source = _resolve(name, "config" if random_init else dtype)
    if isinstance(source, Path):
        if not (source / "config.json").is_file():
            raise _incomplete(source, "a model", ("config.json",))
        if not random_init and not any((source / file).is_file() for file in _WEIGHTS):
            raise _incomplete(source, "safetensors weights", _WEIGHTS)
    from transformers import AutoConfig, AutoModelForCausalLM

    offline = _without_hub(source)
    with quiet_transformers(), _hub_errors(name, source, "model"):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(source), trust_remote_code=False, local_files_only=offline
        )
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UserError(f"{name!r} is a {config.model_type!r} model, which transformers has no causal LM for")
        if random_init:
            with torch.random.fork_rng(
                devices=[]
            ):  # weights are drawn on the CPU; accelerators' states are not touched
                torch.default_generator.manual_seed(seed)
                fresh: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
            return fresh.eval()
        model: PreTrainedModel
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(source),
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=offline,
            output_loading_info=True,
        )
    missing = sorted(loading["missing_keys"])
    if not needs_lm_head:
        head = {id(parameter) for parameter in model.get_output_embeddings().parameters()}
        missing = [name for name in missing if id(model.get_parameter(name)) not in head]
    if missing:
        raise UserError(
            f"the weights of {name!r} leave {len(missing)} parameters unset, {missing[0]!r} the first: "
            "they are no complete causal LM of this config"
        )
    return model


def round_weights(model: "PreTrainedModel", dtype: Dtype) -> None:
    """Bring weights to a precision, in place. Buffers stay, as in loading: rounded rope frequencies would be wrong."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, dtype))


def check_vocabulary(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise UserError for a tokenizer with ids beyond the model's embedding; an embedding may have rows to spare."""
    rows = len(model.get_input_embeddings().weight)
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} tokens and {type(model).__name__} embeddings for {rows:,}: take the "
            "model's own tokenizer, or enlarge the model (resize_token_embeddings) and save the two together"
        )


def weights_fingerprint(model: "PreTrainedModel", state: Mapping[str, Tensor] | None = None) -> str:
    """32 hex digits which tell apart models that compute differently.

    state: the weights, if not those of the model's state dict.
    Covers names, dtypes, shapes and bytes of all weights, tied ones once, and the config, since a rope base or a
    window changes log-probs as weights do. The weights must not be sharded.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in _BOOKKEEPING}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16)
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, tensor in sorted((model.state_dict() if state is None else state).items()):
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if identity in seen and tensor.numel():
            continue
        seen.add(identity)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _resolve(name: str, part: Literal["tokenizer", "config"] | Dtype) -> Path | str:
    """The folder a name stands for, or the hub id that it then must be.

    part: what is asked of it, since not all of a name need lie in one folder.
    """
    if name.startswith(EMBEDDED_PREFIX):
        stem = name.removeprefix(EMBEDDED_PREFIX)
        known = sorted(path.parent.name for path in EMBEDDED_FOLDER.glob("*/config.json"))
        if stem not in known:
            near = difflib.get_close_matches(stem, known, n=1)
            hint = f" (did you mean '{EMBEDDED_PREFIX}{near[0]}'?)" if near else ""
            listed = ", ".join(EMBEDDED_PREFIX + stem for stem in known) or "none yet"
            raise UserError(f"no embedded model is called {name!r}{hint}; there are: {listed}")
        return EMBEDDED_FOLDER / (TOKENIZER if part == TOKENIZER else stem)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if name.endswith(SUFFIX):
        return unpacked(gguf_file(name), TOKENIZER if part == "config" else part)
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or folder.is_file():
        there = "a file" if folder.is_file() else "nothing"
        raise UserError(
            f"{name!r} is no model folder: expected a folder, a .gguf file, a hub id or embedded:..., found {there}"
        )
    return name


def _without_hub(source: Path | str) -> bool:
    """Whether to look on this machine only."""
    return isinstance(source, Path) or hub_is_out_of_reach()


def _incomplete(folder: Path, what: str, expected: tuple[str, ...]) -> UserError:
    found = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") if found else "nothing"
    message = f"{str(folder)!r} holds no {what.removeprefix('a ')}: expected {' or '.join(expected)}, found {listed}"
    if expected is _WEIGHTS and any(name.endswith((".bin", ".pt", ".pth")) for name in found):
        message += "; pickled weights are not read: save them again as safetensors"
    return UserError(message)


@contextmanager
def _hub_errors(name: str, source: Path | str, what: str) -> Iterator[None]:
    """Turn what transformers raises for unreadable files and unreachable hubs into one line."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except UserError:
        raise
    except StrictDataclassError as error:  # a config.json whose values are of the wrong kind
        raise UserError(f"the {what} of {name!r} cannot be loaded: config.json: {error.__cause__ or error}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if isinstance(source, Path):
            place = f"{name!r} ({source})" if name.endswith(SUFFIX) else repr(name)
            raise UserError(f"the {what} in {place} cannot be loaded: {first_line}") from error
        raise UserError(
            f"no folder is called {name!r}, and as a hub id its {what} could not be fetched "
            f"(offline, misspelt, or gated?): {first_line}"
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars from transformers, since a tiny model loads in milliseconds, and no report of weights.

    What is missing is told by us; a score head beside a language model is nothing to be told.
    """
    from transformers.utils import logging

    was_on, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_on:
            logging.enable_progress_bar()
