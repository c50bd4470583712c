"""Final answers taken out of solutions: a number, or LaTeX; numbers are compared here, LaTeX in `latex_equality.py`.

An answer is what follows the last mark: `#### 42` (GSM8K), `The answer is 42.` or `Answer: 42`, `\\boxed{42}`
(MATH). Numbers may have thousands separators, a currency, a percent sign, which says nothing, and a denominator.
Not covered: number words, scientific notation, decimal commas, units beyond being skipped.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from lit_pref.types import Outcome, Verdict

_MARK = re.compile(r"####|\banswer\W{0,3}(?:is\b|:)|\\(?:boxed|fbox)\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<minus>(?<![\w)])[-−])?\\?[$€£¥₹]?"  # after a digit or a bracket it subtracts
    r"(?=\.?\d)(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d*)(?P<decimals>\.\d+)?(?:/(?P<below>\d+))?"
)
_MAX_NUMBER = 1_000  # characters: Python reads no integers of more than 4,300 digits, and nobody means them
_BOX = re.compile(r"\\(?:boxed|fbox)\b\s*")
_MATHEMATICS = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)")
_SHOWN_ALIKE = re.compile(r"\\(?:left|right|displaystyle|[,!;: ])|\$|\s|\\text\s*(?=\{)|\\mathrm\s*(?=\{)")


def compared(expected: Fraction | int, found: Fraction | int | None) -> Verdict:
    """The verdict on an answer; None is none."""
    if found is None:
        return Verdict(Outcome.NO_ANSWER)
    if found == expected:
        return Verdict(Outcome.PASSED)
    return Verdict(Outcome.FAILED, detail=f"expected {expected}, got {found}")


def final_number(text: str, anywhere: bool = False) -> Fraction | None:
    """The number after the last mark that has one; of `2 + 3 = 5` the 5. None where there is none.

    anywhere: without a mark, the last number of the text is meant.
    """
    for marked in _marked(text):
        of_line = marked.partition("\n")[0].rpartition("=")[2]
        if found := _numbers(of_line):
            return found[0]
    found = _numbers(text) if anywhere else []
    return found[-1] if found else None


def to_number(text: str) -> Fraction | None:
    """A number with nothing but a currency or unit around it; None for anything else."""
    found = _numbers(text)
    return found[0] if len(found) == 1 else None


def final_latex(text: str) -> str | None:
    """What the last mark holds or is followed by, as LaTeX without its dollars; None where there is nothing."""
    for marked in _marked(text):
        line = marked.partition("\n")[0]
        shown = _MATHEMATICS.search(line)
        answer = boxed(marked) if _BOX.match(marked) else next(filter(None, shown.groups())) if shown else line
        if answer is not None and (answer := answer.strip().rstrip(".").strip("* ")):
            return answer
    return None


def boxed(text: str) -> str | None:
    r"""What the `\boxed{…}` holds that the text begins with, braces balanced; None where they are not."""
    rest = _BOX.sub("", text, count=1)
    if not rest.startswith("{"):
        return rest.partition("$")[0].split("\n")[0] or None  # MATH also has `\boxed 5`
    depth = 0
    for place, character in enumerate(rest):
        escaped = place > 0 and rest[place - 1] == "\\"
        if character in "{}" and not escaped:
            depth += 1 if character == "{" else -1
            if depth == 0:
                return rest[1:place]
    return None


def written_alike(first: str, second: str) -> bool:
    """Whether two pieces of LaTeX are the same up to spacing, sizes of brackets and fractions, and upright text."""
    return _bare(first) == _bare(second)


def _bare(latex: str) -> str:
    plain = _SHOWN_ALIKE.sub("", re.sub(r"\\[dt]frac", r"\\frac", latex)).rstrip(".")
    return plain[1:-1] if re.fullmatch(r"\{[^{}]*\}", plain) else plain


def _marked(text: str) -> Iterator[str]:
    """What follows each mark, the last one first; of a box with the mark itself."""
    for mark in reversed(list(_MARK.finditer(text))):
        yield text[mark.start() :] if _BOX.match(mark.group()) else text[mark.end() :].lstrip(" \n*:")


def _numbers(text: str) -> list[Fraction]:
    found = (match for match in _NUMBER.finditer(text) if len(match[0]) <= _MAX_NUMBER)
    return [_fraction(match) for match in found if int(match["below"] or 1)]


def _fraction(match: re.Match[str]) -> Fraction:
    size = Fraction((match["whole"].replace(",", "") or "0") + (match["decimals"] or "")) / int(match["below"] or 1)
    return -size if match["minus"] else size
