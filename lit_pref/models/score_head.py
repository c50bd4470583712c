"""A scalar head on a language model's last hidden states: fresh, carried over, and written out for transformers.

Its weight is `score.weight` of transformers' sequence classifiers of one label, so that reward models of either side
open in the other. Not covered: heads with a bias or of several layers, classifiers of several labels.
"""

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import linear

from lit_pref.errors import UserError
from lit_pref.models.adapters import has_adapter, merged
from lit_pref.models.causal_lm import _resolve, _without_hub, quiet_transformers
from lit_pref.models.export import export_model
from lit_pref.models.gguf import SUFFIX
from lit_pref.types import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SCORE = "score.weight"
_APPEND_EOS = "append_eos"  # in config.json: whether EOS follows a response when it is scored
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


class ScoreHead(nn.Module):
    """One score a hidden state, linear and without bias; in fp32 also under autocast or with half precision weights."""

    def __init__(self, weight_1D: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_1D)

    def forward(self, hidden_KD: Tensor) -> Tensor:
        """[K, D] to fp32 [K]."""
        with torch.autocast(hidden_KD.device.type, enabled=False):  # in bf16 close scores would tie
            return linear(hidden_KD.float(), self.weight.float()).squeeze(-1)


def fresh_score_head(model: "PreTrainedModel", std: float | None = None, seed: int = 0) -> ScoreHead:
    """A normally distributed head for the model's hidden states, a function of `seed`; the global state is not touched.

    std: None is the config's initializer_range, as transformers draws the heads of its classifiers, and 1/√(D + 1)
        where a config has none; 0 gives every response the score 0.
    """
    width = hidden_width(model)
    if std is None:
        std = getattr(model.config.get_text_config(), "initializer_range", None) or 1 / math.sqrt(width + 1)
    if not 0 <= std < math.inf:
        raise ValueError(f"std must be >= 0 and finite, got {std}")
    generator = torch.Generator().manual_seed(seed)
    return ScoreHead(std * torch.randn(1, width, generator=generator))


def saved_score_head(name: str, model: "PreTrainedModel") -> ScoreHead | None:
    """The head among the weights of an embedded name, folder or hub id; None where they hold none.

    Raises UserError for a head of several labels, and for one of another width than the model's hidden states.
    """
    file = _file_of_score(name)
    if file is None:
        return None
    with safe_open(file, framework="pt") as weights:
        if _SCORE not in weights.keys():  # noqa: SIM118 - no dictionary: it cannot be asked with `in`
            return None
        weight_1D: Tensor = weights.get_tensor(_SCORE)
    if weight_1D.shape != (1, hidden_width(model)):
        raise UserError(
            f"{_SCORE} of {name!r} has shape {tuple(weight_1D.shape)}: a reward model of this width has one label, "
            f"(1, {hidden_width(model)}); train one anew with fresh_head: true"
        )
    return ScoreHead(weight_1D.float())


def saved_append_eos(model: "PreTrainedModel") -> bool:
    """Whether the head beside the model's weights scores responses after an EOS; True where that is not said."""
    return bool(model.config.to_dict().get(_APPEND_EOS, True))


def hidden_width(model: "PreTrainedModel") -> int:
    """D of the last hidden states: what the LM head takes, which is not the config's hidden_size in every model."""
    return int(model.get_output_embeddings().weight.shape[1])


def freeze_unused_lm_head(model: "PreTrainedModel") -> None:
    """Take the LM head out of training, but for what it shares with the embeddings.

    Where logits are never made it gets no gradient, and distributed training refuses to wait for one.
    """
    embeddings = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    for parameter in model.get_output_embeddings().parameters():
        if id(parameter) not in embeddings:
            parameter.requires_grad_(False)


def export_reward_model(
    model: "PreTrainedModel",
    head: ScoreHead,
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path | str,
    append_eos: bool = True,
    dtype: Dtype | None = None,
) -> Path:
    """Write backbone, head and tokenizer as a folder which opens as AutoModelForSequenceClassification, of one label.

    append_eos: whether the head was trained on responses that end in EOS; the config keeps it under this name, and
        whoever scores with the folder must do the same.
    dtype: of the written weights, as `export_model` takes it.
    An adapter is merged into a copy of the weights first.
    Its forward reads the score at the last token that is not the config's pad token. Where the tokenizer pads with
    EOS, that would be the token before the end: the config then gets no pad token, and transformers scores one
    sequence at a time and refuses larger batches, until it is given a pad token that never ends a response.
    The folder appears complete or not at all. Raises UserError for an architecture without a sequence classifier of
    this form, and as `export_model` does.
    """
    whole = merged(model) if has_adapter(model) else model
    classifier = _classifier(whole, head, tokenizer)
    classifier.config.update({_APPEND_EOS: append_eos})
    return export_model(classifier, tokenizer, folder, dtype=dtype)


def _classifier(model: "PreTrainedModel", head: ScoreHead, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """A sequence classifier around the very modules of `model`: no weight is copied."""
    from transformers import AutoModelForSequenceClassification

    name = type(model).__name__
    if type(model.config) not in AutoModelForSequenceClassification._model_mapping:
        raise UserError(f"transformers has no sequence classifier for {name}: its reward model cannot be exported")
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    pads_with_end = tokenizer.pad_token_id == tokenizer.eos_token_id
    config.get_text_config().pad_token_id = None if pads_with_end else tokenizer.pad_token_id
    with quiet_transformers(), torch.device("meta"):
        classifier: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    children = dict(classifier.named_children())
    score, prefix = children.get("score"), classifier.base_model_prefix
    fits = isinstance(score, nn.Linear) and score.bias is None and score.weight.shape == head.weight.shape
    if not fits or type(classifier.base_model) is not type(model.base_model) or children.keys() != {prefix, "score"}:
        raise UserError(
            f"{type(classifier).__name__} is no linear score on the hidden states of {name}: "
            "its reward model cannot be exported"
        )
    setattr(classifier, prefix, model.base_model)
    classifier.score.weight = nn.Parameter(head.weight.detach().to(model.dtype), requires_grad=False)
    return classifier


def _file_of_score(name: str) -> str | None:
    """The safetensors file which would hold the head: the only one, or that which the index names."""
    from transformers.utils.hub import cached_file

    if name.endswith(SUFFIX):
        return None  # a .gguf file of a language model holds none
    source = _resolve(name, "config")
    where = {"local_files_only": _without_hub(source), "_raise_exceptions_for_missing_entries": False}
    index: str | None = cached_file(str(source), _INDEX, **where)
    if index is None:
        return cached_file(str(source), _WEIGHTS, **where)  # type: ignore[no-any-return]
    file: str | None = json.loads(Path(index).read_text())["weight_map"].get(_SCORE)
    return None if file is None else cached_file(str(source), file, **where)
