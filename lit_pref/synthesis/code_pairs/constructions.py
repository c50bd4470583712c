"""Preference pairs of code: which two texts of a described snippet become one, and which are left out.

A row is `query, better, worse, query_type, confidence`, and the strong model's code is better than the weak one's, as
in the released code of arXiv 2410.02229 (CodePMP) [C], which also drops pairs with a side that is empty or an empty
code fence [C]; original code as chosen and a clipped description for rejected are among its ablations [C]. Ours [D]:
AST mutants as rejected and all other filters. A pair is a function of its material, the settings and the seed.
Not covered: the released code's tag of each snippet and its confidence (`query_type` holds the kind of snippet,
`confidence` nothing); whether the better code is right: nothing is run.
"""

import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

from lit_pref.syntax.languages import LanguageName
from lit_pref.syntax.mutants import mutants
from lit_pref.synthesis.code_pairs.completions import Role
from lit_pref.synthesis.code_pairs.sides import Written, is_sound, without_doc
from lit_pref.synthesis.mining.snippets import Snippet


class NoPairError(ValueError):
    """Some material makes no pair; the message is the reason, as it is counted."""


class Material(NamedTuple):
    """A snippet, its description, and what was written from that; None for what the construction does not need."""

    snippet: Snippet
    description: str
    strong: Written | None = None
    weak: Written | None = None
    clipped: Written | None = None


class Sides(NamedTuple):
    better: Written
    worse: Written


class CodePair(NamedTuple):
    """A row. origin: file and line of the snippet. construction: the name of the class that made it."""

    query: str
    better: str
    worse: str
    query_type: str
    confidence: float | None
    language: str
    origin: str
    license: str
    construction: str


# --- constructions ----------------------------------------------------------------------------------------------------


class Construction(ABC):
    """Which code is better, and which is worse. needs: the completions that its material must hold."""

    needs: ClassVar[tuple[Role, ...]]

    @abstractmethod
    def sides(self, material: Material, rng: random.Random) -> Sides:
        """Raises NoPairError, with the reason, where there are none."""


@dataclass(frozen=True)
class StrongWeak(Construction):
    """The strong model's code over the weak model's: the released code's default."""

    needs: ClassVar[tuple[Role, ...]] = ("strong", "weak")

    def sides(self, material: Material, rng: random.Random) -> Sides:
        return Sides(_given(material.strong), _given(material.weak))


@dataclass(frozen=True)
class OriginalChosen(Construction):
    """The snippet's own code, without its docstring, over the weak model's."""

    needs: ClassVar[tuple[Role, ...]] = ("weak",)

    def sides(self, material: Material, rng: random.Random) -> Sides:
        return Sides(Written(without_doc(material.snippet), whole=True), _given(material.weak))


@dataclass(frozen=True)
class ClippedDescription(Construction):
    """The strong model's code from the description over its code from the description's beginning.

    Args:
        keep: the share of the words that it is shown for the worse side; the default is ours.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError(f"keep must be in (0, 1), got {self.keep}")

    needs: ClassVar[tuple[Role, ...]] = ("strong", "clipped")

    def sides(self, material: Material, rng: random.Random) -> Sides:
        if material.clipped is None:
            raise NoPairError("description too short to clip")
        return Sides(_given(material.strong), material.clipped)


@dataclass(frozen=True)
class MutatedRejected(Construction):
    """Code over a mutant of it, which differs by one slip (`lit_pref.syntax.mutants`); only Python.

    Args:
        of: the snippet's own code without its docstring, which needs no model, or the strong model's.
    """

    of: Literal["original", "strong"] = "original"

    @property
    def needs(self) -> tuple[Role, ...]:  # type: ignore[override]
        return ("strong",) if self.of == "strong" else ()

    def sides(self, material: Material, rng: random.Random) -> Sides:
        if material.snippet.language != "python":
            raise NoPairError("no mutants of this language")
        original = Written(without_doc(material.snippet), whole=True)
        better = _given(material.strong) if self.of == "strong" else original
        try:
            made = mutants(better.code)
        except ValueError as error:
            raise NoPairError("syntax error") from error
        if not made:
            raise NoPairError("no mutants")
        return Sides(better, Written(rng.choice(made).source, whole=True))


def _given(written: Written | None) -> Written:
    assert written is not None  # `needs` asks for it
    return written


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairFilters:
    """What is left out beside empty, truncated and equal sides; all of it is ours.

    Args:
        syntax: pairs with a side that does not parse.
        near_duplicates: descriptions that share nearly all of their runs of three words with an earlier one; false
            leaves out only those with the same words.
        max_length_ratio: pairs with one side longer than the other by more than this factor, in characters, so that
            length tells less; null keeps them.
    """

    syntax: bool = True
    near_duplicates: bool = True
    max_length_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.max_length_ratio is not None and not 1 <= self.max_length_ratio < math.inf:
            raise ValueError(f"max_length_ratio must be >= 1, got {self.max_length_ratio}")

    def fault(self, sides: Sides, language: LanguageName) -> str:
        """Why the pair is left out; "" where it is not."""
        texts = [side.code for side in sides]
        if not all(text.strip() for text in texts):
            return "empty side"
        if not all(side.whole for side in sides):
            return "truncated side"
        if _lines(texts[0]) == _lines(texts[1]):
            return "equal sides"
        if self.syntax and not all(is_sound(text, language) for text in texts):
            return "syntax error"
        shorter, longer = sorted(map(len, texts))
        if self.max_length_ratio is not None and longer > self.max_length_ratio * shorter:
            return "lengths differ"
        return ""


def _lines(code: str) -> list[str]:
    return [line.rstrip() for line in code.splitlines() if line.strip()]


def code_pair(material: Material, construction: Construction, filters: PairFilters, seed: int) -> CodePair:
    """The pair of some material; Raises NoPairError with the reason, as it is counted, where there is none."""
    snippet, origin = material.snippet, f"{material.snippet.origin}:{material.snippet.line}"
    name = type(construction).__name__
    # Seeded by what it is made of, so that neither order nor neighbours matter.
    rng = random.Random(f"{seed}:{name}:{origin}:{snippet.name}:{material.description}")
    sides = construction.sides(material, rng)
    if reason := filters.fault(sides, cast(LanguageName, snippet.language)):
        raise NoPairError(reason)
    return CodePair(
        query=material.description,
        better=sides.better.code,
        worse=sides.worse.code,
        query_type=snippet.kind,
        confidence=None,
        language=snippet.language,
        origin=origin,
        license=snippet.license,
        construction=name,
    )
