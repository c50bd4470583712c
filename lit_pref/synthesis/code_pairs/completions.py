"""Code that models write from descriptions: how they are asked, and the code in what they answer.

In the released code of arXiv 2410.02229 (CodePMP) the same description goes to a strong and to a weak model [C]; how
they were asked there is not known. Ours [D]: both styles of asking, the sampling, and that a side is only code,
without the answer's fence or prose, so that no side is known by its wrapping.
"""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from lit_pref.errors import UserError
from lit_pref.machine.progress import ProgressLines
from lit_pref.sampling.drawing import Draw, TooFewError, draw_all
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.syntax.languages import LanguageName
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.synthesis.code_pairs.sides import Written, answered_code, continued_code
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.tasks.wording import user_turn
from lit_pref.types import Completion, Generator, Sampling, Text

Style = Literal["signature", "instruct", "chat"]
"""How code is asked for.

signature: the description as a comment and the snippet's signature, to be continued: for base models, and for the
embedded ones, which learned it so.
instruct: a request in words, for models that follow instructions; the name is up to them.
chat: the same request as a user's turn, for models with a chat template.
"""

Role = Literal["strong", "weak", "clipped"]
"""Who writes a completion: the strong model, the weak one, or the strong one from a clipped description."""

_REQUEST = """\
Write {language} code that does what is described. Answer with the code alone.

### Description:
{description}
"""
_ANSWER = """
### Code:
"""
_NEXT_TURN = re.compile(r"^[ \t]*#{3,4} (?:Description|Code|Response|Instruction)\b|<\|[^|\n]*\|>|</?s>", re.MULTILINE)


@dataclass(frozen=True)
class Completions:
    """How strong and weak code is asked for and drawn; all of it is ours.

    Args:
        style: signature, instruct or chat.
        sampling: how it is drawn.
    """

    style: Style = "signature"
    sampling: Sampling = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=512)  # noqa: RUF009 - frozen


def completion_prompt(snippet: Snippet, description: str, style: Style) -> Text:
    """What a model is given to write code that fits the description."""
    if style != "signature":
        request = _REQUEST.format(language=snippet.language, description=description)
        return user_turn(request.strip()) if style == "chat" else request + _ANSWER
    mark = "#" if snippet.language == "python" else "//"
    comment = "\n".join(f"{mark} {line}".rstrip() for line in description.splitlines())
    return f"{comment}\n{snippet.signature.rstrip()}\n"


def written_code(snippet: Snippet, text: str, finished: bool, style: Style) -> Written:
    """The code of an answer to `completion_prompt`, without what was thought before it."""
    text = without_thoughts(text)
    if turn := _NEXT_TURN.search(text):
        text, finished = text[: turn.start()], True
    if style != "signature":
        return answered_code(text, finished)
    return continued_code(snippet.signature, text, finished, cast(LanguageName, snippet.language))


def clipped(description: str, keep: float) -> str:
    """The first words of a description, at least one and never all; "" for a description of one word.

    keep: the share of its words that stay.
    """
    words = list(re.finditer(r"\S+", description))
    if len(words) < 2:
        return ""
    kept = min(len(words) - 1, max(1, math.ceil(keep * len(words))))
    return description[: words[kept - 1].end()]


def completed(
    name: str,
    generator: Generator,
    prompts: Sequence[Text],
    sampling: Sampling,
    seed: int,
    journal: SampleJournal | None = None,
) -> list[Completion]:
    """One completion a prompt, in order; those that the journal holds are not drawn again.

    name: the generator's part, for the messages.
    Raises UserError where the generator does not give one for each.
    """
    done = len(journal.found) if journal else 0
    lines = ProgressLines(f"Completions of {name}", len(prompts), done, time.monotonic())
    try:
        found = draw_all(
            generator, prompts, Draw(1, sampling, seed), journal, lambda ended, tokens: lines(ended, tokens=tokens)
        )
    except TooFewError as error:
        raise UserError(f"--{name}: {error}") from error
    return [several[0] for several in found]
