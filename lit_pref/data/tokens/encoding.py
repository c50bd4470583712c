"""A tokenizer's habits made even: one BOS, one EOS, no space of its own before a completion; chat templates.

Only `tokenize.py` uses this. Not covered: which text is a prompt and which a completion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from lit_pref.errors import UserError
from lit_pref.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


class SharedBeginning(NamedTuple):
    """The tokens that several texts begin with, and what follows in each."""

    ids: Ids
    rest: tuple[Ids, ...]


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and two habits of it.

    start_ids: what it puts before a text, usually BOS.
    guard: text before a completion that takes the space which the tokenizer would add there; cut off again.
    """

    tokenizer: "PreTrainedTokenizerBase"
    start_ids: Ids
    guard: str

    def prompts(self, texts: Sequence[str]) -> dict[str, Ids]:
        """Tokens of texts that stand at the beginning."""
        return {text: self._started(ids) for text, ids in _encoded(texts, self.tokenizer).items()}

    def _started(self, ids: Ids) -> Ids:
        if not ids and not self.start_ids and self.tokenizer.bos_token_id is not None:
            return (self.tokenizer.bos_token_id,)
        size = len(self.start_ids)
        while size and ids[:size] == self.start_ids:  # the text, or the template, brought it along
            ids = ids[size:]
        return self.start_ids + ids

    def completions(self, texts: Sequence[str], append_eos: bool) -> dict[str, Ids]:
        """Tokens of texts that follow other text."""
        eos = self._eos(append_eos)
        encoded = _encoded([self.guard, *(self.guard + text for text in texts)], self.tokenizer)
        guard_ids = encoded[self.guard]
        for text, ids in encoded.items():
            if ids[: len(guard_ids)] != guard_ids:
                raise UserError(f"the tokenizer joins a line break with what follows it, as in {text[:40]!r}")
        return {text: _ended(encoded[self.guard + text][len(guard_ids) :], eos) for text in texts}

    def _eos(self, append_eos: bool) -> Ids:
        return (self.tokenizer.eos_token_id,) if append_eos else ()

    def shared_beginning(self, prompt: str, texts: Sequence[str], append_eos: bool) -> SharedBeginning:
        """The tokens that all renderings begin with, and what follows in each text."""
        eos, encoded = self._eos(append_eos), self.prompts([prompt, *texts])
        wholes = [encoded[text] for text in texts]
        shared = 0
        for column in zip(encoded[prompt], *wholes, strict=False):
            if len(set(column)) > 1:
                break
            shared += 1
        return SharedBeginning(wholes[0][:shared], tuple(_ended(ids[shared:], eos) for ids in wholes))


def text_encoder(tokenizer: "PreTrainedTokenizerBase") -> TextEncoder:
    """Find out the tokenizer's habits by trying."""
    full = tuple(tokenizer("a", add_special_tokens=True)["input_ids"])
    bare = _encoded(["a"], tokenizer)["a"]
    place = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    plain, guarded = (TextEncoder(tokenizer, full[:place], guard) for guard in ("", "\n"))
    apart, together = (tokenizer.decode((*bare, *each.completions(["y"], False)["y"])) for each in (plain, guarded))
    return guarded if (apart, together) == ("a y", "ay") else plain


def tokenizer_identity(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """32 hex digits that tell apart tokenizers which encode unlike, chat template included.

    None for one without a fast backend: nothing states all that it does. A template that asks for the date is the same
    template every day.
    """
    if not tokenizer.is_fast:
        return None
    encoder = text_encoder(tokenizer)  # first: its call switches off truncation and padding, which the backend states
    parts = (
        type(tokenizer).__qualname__,
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items()),
        (tokenizer.bos_token_id, tokenizer.eos_token_id),
        (encoder.start_ids, encoder.guard),
    )
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def vocabulary_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """32 hex digits that are equal where the same token ids mean the same text."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return blake2b(repr(vocabulary).encode(), digest_size=16).hexdigest()


def _ended(ids: Ids, eos: Ids) -> Ids:
    """Exactly one EOS, whatever the text brought along; an empty `eos` leaves the tokens as they are."""
    while eos and ids[-1:] == eos:
        ids = ids[:-1]
    return ids + eos


def _encoded(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Ids]:
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    if tokenizer.is_fast:
        # The same tokens in half the time; `text_encoder`'s own call has switched truncation and padding off.
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(unique, add_special_tokens=False)
        return {text: tuple(encoding.ids) for text, encoding in zip(unique, encodings, strict=True)}
    encoding = tokenizer(
        unique, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return {text: tuple(ids) for text, ids in zip(unique, encoding["input_ids"], strict=True)}


def rendering(turns: tuple[Message, ...], tokenizer: "PreTrainedTokenizerBase", generation_prompt: bool) -> str:
    """A conversation as the chat template writes it.

    generation_prompt: end with what an answer begins with; a last turn of the assistant is left open to go on with.

    Raises UserError where there is no template, where it refuses the turns, or where it leaves out what one says.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "a conversation needs a chat template and this tokenizer has none, as those of base models: choose a chat "
            "model, give text in place of turns (--task.style completion; of a file, keys of plain text: prompt_key, "
            "chosen_key, …), or put a chat_template.jinja into the model's folder"
        )
    roles = tuple(turn["role"] for turn in turns)
    goes_on = generation_prompt and roles[-1] == "assistant"
    try:
        text: str = tokenizer.apply_chat_template(
            list(turns),
            tokenize=False,
            add_generation_prompt=generation_prompt and not goes_on,
            continue_final_message=goes_on,
        )
    except Exception as error:  # a template is a program from outside: it may raise anything
        raise UserError(
            f"the chat template refuses the turns {', '.join(roles)}: {error}; write them as it takes them, choose a "
            "model with another template, or skip such rows (on_bad_row)"
        ) from error
    if lost := _left_out(roles, tokenizer):
        raise UserError(
            f"the chat template leaves out what {lost} says in the turns {', '.join(roles)}: choose a model whose "
            "template knows the role, set tokenizer.chat_template, or leave such turns out"
        )
    return text


_TRIED: "WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[str, ...], str | None]]" = WeakKeyDictionary()


def _left_out(roles: tuple[str, ...], tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The first role whose turn a template drops without a word, found by trying it once on words of our own."""
    tried = _TRIED.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), *roles)
    if key not in tried:
        turns = [{"role": role, "content": f"word{number}of{role}"} for number, role in enumerate(roles)]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # noqa: BLE001 - it refuses these words and took the row's own
            text = ""
        lost = [turn["role"] for turn in turns if text and turn["content"] not in text]
        tried[key] = lost[0] if lost else None
    return tried[key]
