"""Trains the small tokenizer of the embedded models: byte-level BPE, lossless, without a BOS token.

    python configs/embedded/tokenizer.py FOLDER    # a step of `make embedded`

What differs from the usual byte-level split: digits stand alone, and a newline with the indentation after it is one
piece. After a colon the newline stands alone, so that a prompt that ends in a function's header and the body that
follows it give the same tokens apart as together. Any other place where two texts meet gives no such promise.
"""

import sys
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pref.tasks import CodeTask

EOS, PAD = "<eos>", "<pad>"
_PIECES = r"(?<=:)\n|\n *| {2,}|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """At most `vocab_size` tokens: `<eos>`, `<pad>`, the 256 bytes, and the merges learned from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


if __name__ == "__main__":
    # With slips in half of them, so that their spellings are words of the vocabulary too.
    demonstrations = CodeTask(bug_rate=0.5).demonstrations("train", 20_000, seed=0)
    train_tokenizer(each.prompt + each.completion for each in demonstrations).save_pretrained(sys.argv[1])
