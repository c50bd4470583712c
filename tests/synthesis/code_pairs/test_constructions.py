"""Constructions and filters: which code is better, which pairs are left out and why; a function of its material."""

import random
from pathlib import Path

import pytest

from lit_pref.data.formats.pairs import read_pairs
from lit_pref.storage.shards import write_parquet
from lit_pref.syntax import mutants
from lit_pref.synthesis.code_pairs.constructions import (
    ClippedDescription,
    CodePair,
    Construction,
    Material,
    MutatedRejected,
    NoPairError,
    OriginalChosen,
    PairFilters,
    Sides,
    StrongWeak,
    code_pair,
)
from lit_pref.synthesis.code_pairs.sides import Written
from lit_pref.synthesis.code_pairs.steps import MakePairs
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.types import PreferencePair

CODE = 'def above(xs, k):\n    """Those above k."""\n    return [x for x in xs if x > k]\n'
BARE = "def above(xs, k):\n    return [x for x in xs if x > k]\n"
SNIPPET = Snippet(
    CODE, "python", "function", "above", "def above(xs, k):", "Those above k.", "", "MIT License", "a/b.py", 7
)
GO = Snippet("func F() {}\n", "go", "function", "F", "func F()", "Does.", "", "", "a.go", 1)
STRONG, WEAK = Written("def above(xs, k):\n    return xs\n", True), Written("def above(xs, k):\n    return k\n", True)


def material(**changed: object) -> Material:
    return Material(SNIPPET, "Those above k.", STRONG, WEAK, None)._replace(**changed)


def made(construction: Construction, given: Material | None = None, seed: int = 0) -> CodePair:
    return code_pair(given or material(), construction, PairFilters(), seed)


def reason(given: Material, filters: PairFilters | None = None, construction: Construction | None = None) -> str:
    with pytest.raises(NoPairError) as caught:
        code_pair(given, construction or StrongWeak(), filters or PairFilters(), 0)
    return str(caught.value)


# --- constructions ----------------------------------------------------------------------------------------------------


def test_strong_is_better_than_weak_and_the_row_says_where_it_is_from() -> None:
    assert made(StrongWeak()) == CodePair(
        query="Those above k.",
        better=STRONG.code,
        worse=WEAK.code,
        query_type="function",
        confidence=None,
        language="python",
        origin="a/b.py:7",
        license="MIT License",
        construction="StrongWeak",
    )


def test_the_original_does_not_bring_its_docstring_along() -> None:
    pair = made(OriginalChosen())
    assert (pair.better, pair.worse) == (BARE, WEAK.code)


def test_code_from_a_clipped_description_is_worse() -> None:
    clipped = Written("def above(xs, k):\n    return []\n", True)
    pair = made(ClippedDescription(), material(clipped=clipped))
    assert (pair.better, pair.worse) == (STRONG.code, clipped.code)
    assert reason(material(clipped=None), construction=ClippedDescription()) == "description too short to clip"


@pytest.mark.parametrize(("of", "better"), [("original", BARE), ("strong", "def f(x):\n    return x > 1 and x < 9\n")])
def test_a_mutant_is_worse_than_what_it_was_made_of(of: str, better: str) -> None:
    given = material(strong=Written("def f(x):\n    return x > 1 and x < 9\n", True))
    every = {mutant.source for mutant in mutants(better)}
    drawn = {made(MutatedRejected(of), given, seed).worse for seed in range(40)}  # type: ignore[arg-type]
    assert made(MutatedRejected(of), given).better == better  # type: ignore[arg-type]
    # Of n mutants drawn 40 times, one is never drawn with probability n (1 - 1/n)^40 < 0.2 for n = 8: most are.
    assert drawn <= every and len(drawn) > len(every) / 2


def test_mutants_need_python_that_parses_and_holds_a_place_for_a_slip() -> None:
    assert reason(material(snippet=GO), construction=MutatedRejected()) == "no mutants of this language"
    broken = material(strong=Written("def f(x:\n", True))
    assert reason(broken, construction=MutatedRejected("strong")) == "syntax error"
    plain = material(strong=Written("def f(x):\n    pass\n", True))
    assert reason(plain, construction=MutatedRejected("strong")) == "no mutants"


def test_what_each_construction_needs_is_what_it_looks_at() -> None:
    everything = {"strong": STRONG, "weak": WEAK, "clipped": WEAK}
    constructions = (StrongWeak(), OriginalChosen(), ClippedDescription(), MutatedRejected(), MutatedRejected("strong"))
    for construction in constructions:
        needed = {role: everything[role] for role in construction.needs}
        sides = construction.sides(Material(SNIPPET, "Those above k.", **needed), random.Random(0))
        assert isinstance(sides, Sides)


def test_a_pair_depends_on_its_material_and_the_seed_alone() -> None:
    pairs = [made(MutatedRejected(), seed=seed) for seed in (1, 1, 2, 3, 4, 5)]
    assert pairs[0] == pairs[1]
    assert len({pair.worse for pair in pairs}) > 1


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"weak": Written("", True)}, "empty side"),
        ({"strong": Written("\n \n", True)}, "empty side"),
        ({"weak": WEAK._replace(whole=False)}, "truncated side"),
        ({"weak": Written("def above(xs, k):\n\n    return xs  \n", True)}, "equal sides"),  # but for blanks
        ({"weak": Written("def above(xs, k)\n    return k\n", True)}, "syntax error"),
        ({"strong": Written("I cannot do that.\n", True)}, "syntax error"),
        ({"weak": Written("", False)}, "empty side"),  # the first reason counts
    ],
)
def test_each_pair_left_out_has_one_reason(changed: dict[str, Written], expected: str) -> None:
    assert reason(material(**changed)) == expected


def test_indentation_is_a_difference() -> None:
    strong = Written("for x in xs:\n    f(x)\n    g(x)\n", True)
    weak = Written("for x in xs:\n    f(x)\ng(x)\n", True)
    assert made(StrongWeak(), material(strong=strong, weak=weak)).worse == weak.code


def test_syntax_may_be_left_unchecked() -> None:
    broken = material(weak=Written("return return\n", True))
    assert code_pair(broken, StrongWeak(), PairFilters(syntax=False), 0).worse == "return return\n"


def test_lengths_can_be_held_together() -> None:
    # 32 and 31 characters: a factor of 1.03
    assert (len(STRONG.code), len(WEAK.code)) == (32, 31)
    assert code_pair(material(), StrongWeak(), PairFilters(max_length_ratio=1.05), 0)
    assert reason(material(), PairFilters(max_length_ratio=1.02)) == "lengths differ"


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"max_length_ratio must be >= 1, got 0\.5"):
        PairFilters(max_length_ratio=0.5)
    for keep in (0.0, 1.0):
        with pytest.raises(ValueError, match=rf"keep must be in \(0, 1\), got {keep}"):
            ClippedDescription(keep)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_read_as_pairs(tmp_path: Path) -> None:
    row = made(StrongWeak())
    write_parquet(tmp_path / "pairs.parquet", [row._asdict()], MakePairs.schema)
    assert read_pairs(tmp_path / "pairs.parquet").records == [PreferencePair(row.query, row.better, row.worse)]
