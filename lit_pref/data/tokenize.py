"""Text to token trees: the only file that sees a tokenizer.

- Prompt and completion are tokenized apart and their tokens put together, as a model samples them: the completion's
  first token never merges with the prompt's last. Tokenizers that put a space before every text (Llama 2) are kept
  from doing so before a completion.
- Exactly one BOS, where the tokenizer or the chat template has one (trl#4481), and exactly one EOS at each
  completion's end. Tokens that were sampled (`chosen_ids`, …) are used as they are.
- Conversations go through the chat template: the prompt's rendering ends with the generation prompt, a completion is
  what its rendering adds. Where a template rewrites the generation prompt, the longest common tokens are the prompt.

Not covered: templates with tools or images; training on assistant turns before the last.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from lit_pref.data.encoding import TextEncoder, TreeText
from lit_pref.errors import UserError
from lit_pref.types import Demonstration, PreferencePair, Text, TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 2048  # records whose texts are tokenized in one call; encodings take kilobytes each
