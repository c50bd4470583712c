"""When EvalPlus (arXiv 2305.01210) takes a result for right: equal to the reference's, or close where that is a float.

Its source is executed beside the reference in the sandbox, where no package is: standard library only. The special
cases are those of EvalPlus 0.3.1, by the function's name. Where it differs: of `find_zero`, EvalPlus asks for a root
to within `atol`, which its own reference misses on steep polynomials (evalplus issue 253); here a root may be `atol`
worse than the reference's.
"""

import json
import math
from typing import Any

# Mbpp/2, 7, 111, 140, 232, 249, 579, 769: any order, any multiplicity.
SAME_SET = {
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
    "intersection_array", "find_dissimilar", "Diff",
}  # fmt: skip
# Mbpp/737, 787, 794: a match object is as good as True.
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
# Of a message of the sandbox, which holds 1 MiB; JSON spells a character with up to six.
LARGEST = 150_000


def accepted(name: str, arguments: list[Any], result: Any, expected: Any, atol: float) -> bool:
    """Whether `result` of the function `name` is right, given the reference's."""
    if name == "find_zero":
        coefficients = arguments[0]
        return abs(_polynomial(coefficients, result)) <= abs(_polynomial(coefficients, expected)) + atol
    if name == "are_equivalent":  # Mbpp/164, whose statement is not clear
        return True
    if name in SAME_SET:
        return set(result) == set(expected)
    if name in NOT_NONE:
        return (result if isinstance(result, bool) else result is not None) == (expected is not None)
    if result == expected or (name == "sum_div" and result == 0):  # Mbpp/295: may the number itself be a divisor?
        return True
    if name == "surface_Area":  # Mbpp/581: the height may be the pyramid's, not its side's
        base, height = arguments
        return bool(abs(result - round(base**2 + 2 * base * math.hypot(base / 2, height))) <= atol)
    if name == "digit_distance_nums":  # Mbpp/558: digits may be aligned at the right
        first, second = (str(number) for number in arguments)
        width = max(len(first), len(second))
        pairs = zip(first.zfill(width), second.zfill(width), strict=True)
        return bool(result == sum(abs(int(a) - int(b)) for a, b in pairs))
    if atol == 0 and _is_floats(expected):
        atol = 1e-6
    return atol > 0 and type(result) is type(expected) and close(result, expected, atol)


def close(result: Any, expected: Any, atol: float) -> bool:
    """numpy's `allclose` with rtol 1e-7, for numbers and lists of them."""
    if isinstance(expected, list | tuple):
        same_length = isinstance(result, list | tuple) and len(result) == len(expected)
        return same_length and all(close(a, b, atol) for a, b in zip(result, expected, strict=True))
    if isinstance(expected, int | float | complex) and isinstance(result, int | float | complex):
        return result == expected or abs(result - expected) <= atol + 1e-7 * abs(expected)
    return bool(result == expected)


def value(source: str) -> Any:
    """What `repr` was given; through JSON where it is that too, which takes a twentieth of the time."""
    try:
        return json.loads(source)
    except ValueError:
        return eval(source, {"inf": math.inf, "nan": math.nan})


def size(value: Any) -> int:
    """About how many characters a value takes, without spelling it."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(size(key) + size(item) + 2 for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(size(item) + 2 for item in value)
    return value.bit_length() // 3 if isinstance(value, int) else 24


def _polynomial(coefficients: list[float], x: float) -> float:
    return sum(coefficient * x**power for power, coefficient in enumerate(coefficients))


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)
