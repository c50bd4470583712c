"""What a snippet does, in words: its own docstring, or an instruction that a model writes after reading it.

After the released code of arXiv 2410.02229 (CodePMP): a small instruct model (deepseek-coder-1.3b-instruct) reads the
snippet as plain text, without a chat template, and writes an instruction with its intent, function and approach, at
temperature 0.7, top-p 1, at most 1,024 new tokens, and is cut where it begins another turn [C]. Ours [D]: the words of
the prompt, docstrings as descriptions, and that descriptions which say nearly the same are kept once.
Not covered: the released code's tag of each snippet (engineering or not), of which its default keeps all.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.syntax.words import words
from lit_pref.synthesis.code_pairs.completions import completed
from lit_pref.synthesis.mining.near_duplicates import MinHashBands, SeenSnippets
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.types import Completion, Generator, Sampling

Descriptions = Literal["docstring", "generated", "docstring_or_generated"]
"""Where descriptions come from: the snippets' docstrings or leading comments, the describer, or the latter where there
is none of the former."""

_ROLE = """\
You read {language} code and write the request that would have led a programmer to write it.

Say in plain sentences what the code is for; what it takes, returns and changes, special cases included; and the way it
goes about this, so that somebody who has never seen it could write it again. Do not quote the code.

### Code:
```{language}
{code}
```

### Request:
"""
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_WORD = re.compile(r"\w+")
_RUN = 3  # words
_BANDS, _ROWS = 6, 8
_NEXT_TURN = re.compile(r"^[ \t]*(?:#{2,4} |```)|<\|[^|\n]*\|>|</?s>", re.MULTILINE)


@dataclass(frozen=True)
class Describer:
    """Who describes snippets.

    Args:
        descriptions: docstring takes what the source says itself, and leaves out snippets that say nothing; generated
            has the generator write all of them; docstring_or_generated those that are missing.
        generator: a policy (an embedded model, a folder, a .gguf file, a hub id), or a Generator by its class.
        sampling: how it writes; the default is the released code's.
        summary: take only the first paragraph of a docstring.
    """

    descriptions: Descriptions = "docstring"
    generator: Generator | str | None = None
    sampling: Sampling = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=1024)  # noqa: RUF009 - frozen
    summary: bool = False

    def __post_init__(self) -> None:
        if self.descriptions != "docstring" and self.generator is None:
            raise ValueError(f"descriptions: {self.descriptions} needs a generator, such as a policy's name")

    def docstring(self, snippet: Snippet) -> str:
        """What the source itself says of the snippet, as far as it is taken."""
        text = snippet.doc.strip()
        return _PARAGRAPHS.split(text, maxsplit=1)[0] if self.summary else text

    def is_asked(self, snippet: Snippet) -> bool:
        """Whether the generator is to describe the snippet."""
        return self.descriptions == "generated" or (self.descriptions != "docstring" and not snippet.doc.strip())


class Description(NamedTuple):
    """text: empty where there is none. generated: a model wrote it."""

    text: str
    generated: bool


def describer_prompt(snippet: Snippet) -> str:
    """The snippet put to the describer: plain text that its answer goes on from."""
    return _ROLE.format(language=snippet.language, code=snippet.code.rstrip())


def description_in(answer: str) -> str:
    """The describer's answer without its thoughts, up to where it begins another turn."""
    answer = without_thoughts(answer)
    turn = _NEXT_TURN.search(answer)
    return (answer[: turn.start()] if turn else answer).strip()


def described(
    snippets: Sequence[Snippet],
    describer: Describer,
    generator: Generator | None,
    seed: int,
    journal: SampleJournal | None = None,
) -> list[Description]:
    """A description for each snippet, in order.

    generator: the describer's own, opened; None where it has none.
    journal: of what it writes.
    """
    asked = [snippet for snippet in snippets if describer.is_asked(snippet)]
    answers: Iterator[Completion] = iter(())
    if asked:
        assert generator is not None  # Describer has refused to go without
        prompts = [describer_prompt(snippet) for snippet in asked]
        answers = iter(completed("describer", generator, prompts, describer.sampling, seed, journal))
    found = []
    for snippet in snippets:
        is_asked = describer.is_asked(snippet)
        text = description_in(next(answers).text) if is_asked else describer.docstring(snippet)
        found.append(Description(text, is_asked))
    return found


def repeated(texts: Sequence[str], seen: SeenSnippets, near: bool) -> list[str]:
    """Why each description is not kept, in their order; "" for one that is, and is seen from now on.

    seen: what was kept before; however descriptions are split over calls, the answers are the same.
    near: leave out those too that share nearly all runs of three words with one that was kept (`near_duplicates.py`).
    """
    # Only words count: neither case nor punctuation nor layout.
    said = [" ".join(_WORD.findall(text.lower())) for text in texts]
    lines = [line.encode("utf-8", "replace") for line in said if line]
    if not lines:
        return ["empty description"] * len(texts)
    ends = list(accumulate(len(line) + 1 for line in lines))
    places = [(end - 1 - len(line), end - 1) for line, end in zip(lines, ends, strict=True)]
    compared = MinHashBands(_RUN, _BANDS if near else 0, _ROWS)
    verdicts = iter(seen.add(compared.keys(words(b"\n".join(lines)), places, [line.decode() for line in lines])))
    reasons = [next(verdicts) if line else "empty" for line in said]
    return [f"{reason} description" if reason else "" for reason in reasons]
