"""The vocabulary of the code task: typed operations as tables, each a Python expression and its English phrases.

Data only. How operations are chained is in `code_grammar.py`, how their code goes wrong in `code_bugs.py`.

`{v}` in an expression is its input, `{k}` its parameter; `{p}` in a story's phrase is a person. Phrases of operations
that take the same kind are all different, so that a description says what to do without ambiguity.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["ints", "words", "text", "int"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One step: an expression over its input, and how to say it.

    choices: the values its parameter takes, as they stand in code and in words; empty where it has none.
    """

    name: str
    gives: Kind
    code: str
    phrases: tuple[str, ...]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition of an if/else problem."""

    name: str
    code: str
    phrases: tuple[str, ...]
    choices: tuple[str, ...] = ()


def _numbers(low: int, high: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(low, high + 1))


THRESHOLD = _numbers(0, 9)
AMOUNT = _numbers(1, 9)
FACTOR = _numbers(2, 9)
SIZE = _numbers(2, 5)
LENGTH = _numbers(2, 6)
LETTER = tuple("aeionrst")

_INTS = (
    Operation("keep_even", "ints", "[x for x in {v} if x % 2 == 0]", ("keep the even numbers", "drop the odd numbers")),
    Operation("keep_odd", "ints", "[x for x in {v} if x % 2 == 1]", ("keep the odd numbers", "drop the even numbers")),
    Operation(
        "keep_greater",
        "ints",
        "[x for x in {v} if x > {k}]",
        ("keep the numbers greater than {k}", "keep the numbers above {k}"),
        THRESHOLD,
    ),
    Operation(
        "keep_at_least",
        "ints",
        "[x for x in {v} if x >= {k}]",
        ("keep the numbers that are at least {k}", "drop the numbers below {k}"),
        THRESHOLD,
    ),
    Operation(
        "keep_less",
        "ints",
        "[x for x in {v} if x < {k}]",
        ("keep the numbers less than {k}", "keep the numbers below {k}"),
        THRESHOLD,
    ),
    Operation(
        "keep_at_most",
        "ints",
        "[x for x in {v} if x <= {k}]",
        ("keep the numbers that are at most {k}", "drop the numbers above {k}"),
        THRESHOLD,
    ),
    Operation(
        "keep_between",
        "ints",
        "[x for x in {v} if x >= 0 and x <= {k}]",
        ("keep the numbers from 0 to {k}", "keep the numbers between 0 and {k}"),
        FACTOR,
    ),
    Operation(
        "keep_multiples",
        "ints",
        "[x for x in {v} if x % {k} == 0]",
        ("keep the multiples of {k}", "keep the numbers divisible by {k}"),
        _numbers(3, 5),
    ),
    Operation(
        "drop_value", "ints", "[x for x in {v} if x != {k}]", ("remove every {k}", "drop all equal to {k}"), THRESHOLD
    ),
    Operation(
        "add", "ints", "[x + {k} for x in {v}]", ("add {k} to each number", "increase each number by {k}"), AMOUNT
    ),
    Operation(
        "subtract",
        "ints",
        "[x - {k} for x in {v}]",
        ("subtract {k} from each number", "decrease each number by {k}"),
        AMOUNT,
    ),
    Operation(
        "multiply",
        "ints",
        "[x * {k} for x in {v}]",
        ("multiply each number by {k}", "scale the numbers by {k}"),
        FACTOR,
    ),
    Operation(
        "floor_divide",
        "ints",
        "[x // {k} for x in {v}]",
        ("divide each number by {k} rounding down", "replace each number by its quotient by {k}"),
        FACTOR,
    ),
    Operation(
        "remainder",
        "ints",
        "[x % {k} for x in {v}]",
        ("take each number modulo {k}", "replace each number by its remainder by {k}"),
        FACTOR,
    ),
    Operation("square", "ints", "[x * x for x in {v}]", ("square each number", "multiply each number by itself")),
    Operation("negate", "ints", "[-x for x in {v}]", ("negate each number", "flip the sign of each number")),
    Operation(
        "absolute",
        "ints",
        "[abs(x) for x in {v}]",
        ("take absolute values", "drop the signs"),
    ),
    Operation(
        "cap",
        "ints",
        "[min(x, {k}) for x in {v}]",
        ("cap each number at {k}", "limit each number to at most {k}"),
        THRESHOLD,
    ),
    Operation(
        "sort", "ints", "sorted({v})", ("sort in ascending order", "sort the numbers", "order from small to large")
    ),
    Operation(
        "sort_down",
        "ints",
        "sorted({v}, reverse=True)",
        ("sort in descending order", "sort the numbers downwards", "order from large to small"),
    ),
    Operation("reverse", "ints", "{v}[::-1]", ("reverse the list", "put the numbers in reverse order")),
    Operation("unique", "ints", "sorted(set({v}))", ("sort the distinct numbers", "remove duplicates and sort")),
    Operation(
        "first", "ints", "{v}[:{k}]", ("take the first {k} numbers", "keep only the first {k} of the list"), SIZE
    ),
    Operation("last", "ints", "{v}[-{k}:]", ("take the last {k} numbers", "keep only the last {k} of the list"), SIZE),
    Operation("drop_first", "ints", "{v}[{k}:]", ("drop the first {k} numbers", "skip the first {k} numbers"), SIZE),
    Operation(
        "largest",
        "ints",
        "sorted({v}, reverse=True)[:{k}]",
        ("take the {k} largest numbers", "list the top {k} numbers from large to small"),
        SIZE,
    ),
    Operation("every_other", "ints", "{v}[::2]", ("take every other number", "keep the numbers at even positions")),
    Operation(
        "differences",
        "ints",
        "[{v}[i + 1] - {v}[i] for i in range(len({v}) - 1)]",
        ("take the differences of neighbours", "subtract each number from the next"),
    ),
    Operation(
        "running_total",
        "ints",
        "[sum({v}[:i + 1]) for i in range(len({v}))]",
        ("take the running totals", "list the cumulative sums"),
    ),
    Operation("append", "ints", "{v} + [{k}]", ("append {k}", "put {k} at the end"), THRESHOLD),
    Operation("sum", "int", "sum({v})", ("sum the numbers", "add up the numbers", "return the total")),
    Operation("count", "int", "len({v})", ("count the numbers", "return how many numbers there are")),
    Operation(
        "maximum", "int", "max({v}, default=0)", ("find the largest number or 0 if none", "return the maximum or 0")
    ),
    Operation(
        "minimum", "int", "min({v}, default=0)", ("find the smallest number or 0 if none", "return the minimum or 0")
    ),
    Operation(
        "spread",
        "int",
        "max({v}, default=0) - min({v}, default=0)",
        ("find the range of the numbers or 0 if none", "subtract the minimum from the maximum"),
    ),
    Operation(
        "count_greater",
        "int",
        "sum(1 for x in {v} if x > {k})",
        ("count the numbers greater than {k}", "count how many are above {k}"),
        THRESHOLD,
    ),
    Operation(
        "count_at_most",
        "int",
        "sum(1 for x in {v} if x <= {k})",
        ("count the numbers that are at most {k}", "count how many are not above {k}"),
        THRESHOLD,
    ),
    Operation(
        "sum_even", "int", "sum(x for x in {v} if x % 2 == 0)", ("sum the even numbers", "add up the even numbers")
    ),
    Operation(
        "mean",
        "int",
        "sum({v}) // max(len({v}), 1)",
        ("find the mean rounded down or 0 if none", "average the numbers rounding down"),
    ),
    Operation(
        "number_texts", "words", "[str(x) for x in {v}]", ("write each number as text", "turn each number into text")
    ),
)

_WORDS = (
    Operation(
        "keep_longer",
        "words",
        "[w for w in {v} if len(w) > {k}]",
        ("keep the words longer than {k} letters", "keep the words with more than {k} letters"),
        LENGTH,
    ),
    Operation(
        "keep_at_least",
        "words",
        "[w for w in {v} if len(w) >= {k}]",
        ("keep the words with at least {k} letters", "drop the words shorter than {k} letters"),
        LENGTH,
    ),
    Operation(
        "keep_shorter",
        "words",
        "[w for w in {v} if len(w) < {k}]",
        ("keep the words shorter than {k} letters", "keep the words with fewer than {k} letters"),
        LENGTH,
    ),
    Operation(
        "keep_containing",
        "words",
        '[w for w in {v} if "{k}" in w]',
        ("keep the words that contain {k}", "keep the words with the letter {k}"),
        LETTER,
    ),
    Operation(
        "drop_containing",
        "words",
        '[w for w in {v} if "{k}" not in w]',
        ("drop the words that contain {k}", "keep the words without the letter {k}"),
        LETTER,
    ),
    Operation("upper", "words", "[w.upper() for w in {v}]", ("uppercase each word", "write the words in capitals")),
    Operation("reverse_each", "words", "[w[::-1] for w in {v}]", ("reverse each word", "spell each word backwards")),
    Operation("sort", "words", "sorted({v})", ("sort the words", "put the words in alphabetical order")),
    Operation(
        "sort_down",
        "words",
        "sorted({v}, reverse=True)",
        ("sort the words from z to a", "put the words in reverse alphabetical order"),
    ),
    Operation(
        "by_length", "words", "sorted({v}, key=len)", ("sort the words by length", "order the words shortest first")
    ),
    Operation(
        "by_length_down",
        "words",
        "sorted({v}, key=len, reverse=True)",
        ("sort the words by length descending", "order the words longest first"),
    ),
    Operation("first", "words", "{v}[:{k}]", ("take the first {k} words", "keep only the first {k} words"), SIZE),
    Operation("last", "words", "{v}[-{k}:]", ("take the last {k} words", "keep only the last {k} words"), SIZE),
    Operation("drop_first", "words", "{v}[{k}:]", ("drop the first {k} words", "skip the first {k} words"), SIZE),
    Operation("unique", "words", "sorted(set({v}))", ("sort the distinct words", "remove duplicate words and sort")),
    Operation(
        "heads",
        "words",
        "[w[:{k}] for w in {v}]",
        ("cut each word to its first {k} letters", "keep the first {k} letters of each word"),
        SIZE,
    ),
    Operation(
        "tails",
        "words",
        "[w[-{k}:] for w in {v}]",
        ("cut each word to its last {k} letters", "keep the last {k} letters of each word"),
        SIZE,
    ),
    Operation("lengths", "ints", "[len(w) for w in {v}]", ("take the length of each word", "list the word lengths")),
    Operation("count", "int", "len({v})", ("count the words", "return how many words there are")),
    Operation(
        "longest_length",
        "int",
        "max([len(w) for w in {v}], default=0)",
        ("find the length of the longest word or 0 if none", "return the greatest word length or 0"),
    ),
    Operation(
        "count_longer",
        "int",
        "sum(1 for w in {v} if len(w) > {k})",
        ("count the words longer than {k} letters", "count how many words have more than {k} letters"),
        LENGTH,
    ),
    Operation("join", "text", '" ".join({v})', ("join the words with spaces", "make a sentence of the words")),
    Operation("join_dash", "text", '"-".join({v})', ("join the words with dashes", "put a dash between the words")),
    Operation(
        "longest",
        "text",
        'max({v}, key=len, default="")',
        ("find the longest word", "return the word with most letters"),
    ),
)

_TEXT = (
    Operation("upper", "text", "{v}.upper()", ("uppercase the text", "write the text in capitals")),
    Operation("reverse", "text", "{v}[::-1]", ("reverse the text", "read the text backwards")),
    Operation(
        "first", "text", "{v}[:{k}]", ("take the first {k} characters", "cut the text after {k} characters"), LENGTH
    ),
    Operation(
        "last", "text", "{v}[-{k}:]", ("take the last {k} characters", "keep only the last {k} characters"), LENGTH
    ),
    Operation(
        "drop_first", "text", "{v}[{k}:]", ("drop the first {k} characters", "skip the first {k} characters"), LENGTH
    ),
    Operation(
        "drop_vowels",
        "text",
        '"".join(c for c in {v} if c not in "aeiou")',
        ("remove the vowels", "drop all vowels from the text"),
    ),
    Operation(
        "drop_letter",
        "text",
        '{v}.replace("{k}", "")',
        ("remove the letter {k}", "delete every {k} from the text"),
        LETTER,
    ),
    Operation(
        "repeat", "text", "{v} * {k}", ("repeat the text {k} times", "write the text {k} times over"), _numbers(2, 4)
    ),
    Operation("split", "words", "{v}.split()", ("split into words", "split the text at spaces")),
    Operation("length", "int", "len({v})", ("count the characters", "return the length of the text")),
    Operation(
        "count_vowels",
        "int",
        'sum(1 for c in {v} if c in "aeiou")',
        ("count the vowels", "return how many vowels it has"),
    ),
    Operation(
        "count_letter", "int", '{v}.count("{k}")', ("count the letter {k}", "count how often {k} occurs"), LETTER
    ),
)

_INT = (
    Operation("add", "int", "{v} + {k}", ("add {k}", "increase it by {k}"), AMOUNT),
    Operation("subtract", "int", "{v} - {k}", ("subtract {k}", "decrease it by {k}"), AMOUNT),
    Operation("multiply", "int", "{v} * {k}", ("multiply by {k}", "scale it by {k}"), FACTOR),
    Operation("floor_divide", "int", "{v} // {k}", ("divide by {k} rounding down", "take the quotient by {k}"), FACTOR),
    Operation("remainder", "int", "{v} % {k}", ("take it modulo {k}", "take the remainder by {k}"), FACTOR),
    Operation("square", "int", "{v} * {v}", ("square it", "multiply it by itself")),
    Operation("absolute", "int", "abs({v})", ("take the absolute value", "drop the sign")),
    Operation("raise_to", "int", "max({v}, {k})", ("raise it to at least {k}", "use {k} if it is smaller"), AMOUNT),
    Operation("cap", "int", "min({v}, {k})", ("cap it at {k}", "use {k} if it is larger"), FACTOR),
    Operation("digit_sum", "int", "sum(int(d) for d in str(abs({v})))", ("sum its digits", "add up its digits")),
    Operation(
        "multiples",
        "ints",
        "[{v} * i for i in range(1, {k} + 1)]",
        ("list its first {k} multiples", "list it times 1 to {k}"),
        LENGTH,
    ),
    Operation("digits", "ints", "[int(d) for d in str(abs({v}))]", ("list its digits", "split it into digits")),
)

OPERATIONS: dict[Kind, tuple[Operation, ...]] = {"ints": _INTS, "words": _WORDS, "text": _TEXT, "int": _INT}

PREDICATES: dict[Kind, tuple[Predicate, ...]] = {
    "ints": (
        Predicate("longer", "len({v}) > {k}", ("there are more than {k} numbers",), _numbers(2, 5)),
        Predicate("sum_greater", "sum({v}) > {k}", ("the sum is greater than {k}", "the sum is above {k}"), THRESHOLD),
        Predicate(
            "sum_at_least", "sum({v}) >= {k}", ("the sum is at least {k}", "the sum is not below {k}"), THRESHOLD
        ),
        Predicate("sum_even", "sum({v}) % 2 == 0", ("the sum is even", "the total is even")),
        Predicate("contains", "{k} in {v}", ("the list contains {k}", "{k} is in the list"), THRESHOLD),
        Predicate("any_greater", "any(x > {k} for x in {v})", ("any number is greater than {k}",), _numbers(6, 11)),
    ),
    "words": (
        Predicate("longer", "len({v}) > {k}", ("there are more than {k} words",), _numbers(2, 4)),
        Predicate("any_longer", "any(len(w) > {k} for w in {v})", ("any word is longer than {k} letters",), LENGTH),
    ),
    "text": (
        Predicate("longer", "len({v}) > {k}", ("there are more than {k} characters",), _numbers(7, 12)),
        Predicate("contains", '"{k}" in {v}', ("the text contains {k}", "the letter {k} occurs"), LETTER),
    ),
    "int": (
        Predicate("greater", "{v} > {k}", ("it is greater than {k}", "it is above {k}"), THRESHOLD),
        Predicate("less", "{v} < {k}", ("it is less than {k}", "it is below {k}"), THRESHOLD),
        Predicate("even", "{v} % 2 == 0", ("it is even",)),
        Predicate("divisible", "{v} % {k} == 0", ("it is divisible by {k}", "it is a multiple of {k}"), _numbers(3, 5)),
        Predicate("even_and_greater", "{v} % 2 == 0 and {v} > {k}", ("it is even and greater than {k}",), THRESHOLD),
    ),
}

# Steps of a story; x is what the person has, y a second argument of the function.
STORY_STEPS = (
    Operation("gain", "int", "x + {k}", ("{p} buys {k} more", "{p} finds {k} more", "{p} gets {k} more"), AMOUNT),
    Operation("lose", "int", "x - {k}", ("{p} loses {k}", "{p} gives away {k}", "{p} sells {k}"), AMOUNT),
    Operation("gain_other", "int", "x + y", ("a friend brings y more", "{p} gets y more from a friend")),
    Operation("lose_other", "int", "x - y", ("a friend takes y", "{p} gives y to a friend")),
    Operation("double", "int", "x * 2", ("{p} buys as many again", "{p} doubles them")),
    Operation("times", "int", "x * {k}", ("the pile grows {k} times as large",), FACTOR),
    Operation("halve", "int", "x // 2", ("{p} keeps half rounded down", "half of them rounded down are left")),
    Operation(
        "share",
        "int",
        "x // {k}",
        ("{p} splits them into {k} equal bags and keeps one", "{p} shares them among {k} and takes one share"),
        _numbers(3, 9),
    ),
    Operation("left_over", "int", "x % {k}", ("{p} packs bags of {k} and keeps the rest",), _numbers(3, 9)),
    Operation("lose_some", "int", "max(x - {k}, 0)", ("{p} loses {k} or all if there are fewer",), AMOUNT),
    Operation("keep_most", "int", "min(x, {k})", ("{p} keeps at most {k}",), _numbers(5, 19)),
    Operation(
        "refill", "int", "x + 5 if x < {k} else x", ("if there are fewer than {k}, {p} buys 5 more",), _numbers(5, 15)
    ),
    Operation(
        "tax", "int", "x - 3 if x >= {k} else x", ("if there are at least {k}, {p} gives away 3",), _numbers(5, 15)
    ),
)
PEOPLE = ("Tom", "Ana", "Sam", "Mia", "Ben", "Eva")
THINGS = ("apples", "books", "cards", "pens", "shells", "stamps")
