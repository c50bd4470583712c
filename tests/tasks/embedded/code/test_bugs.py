import random

import pytest

from lit_pref.tasks.embedded.code.bugs import insert_bug


@pytest.mark.parametrize(
    ("clean", "slipped"),
    [
        ("[x for x in xs if x >= 3]", "[x for x in xs if x > 3]"),
        ("[x for x in xs if x <= 3]", "[x for x in xs if x < 3]"),
        ("[x for x in xs if x < 3]", "[x for x in xs if x <= 3]"),
        ("n // 2", "n / 2"),
        ("n % 2 == 0 and n > 3", "n % 2 == 0 or n > 3"),
        ("n + 4", "n - 4"),
        ("[x + k for x in xs]", "[x - k for x in xs]"),
        ("max(xs, default=0)", "max(xs)"),
        ('max(words, key=len, default="")', "max(words, key=len)"),
        ("sorted(xs, reverse=True)", "sorted(xs)"),
        ("xs[-k:]", "xs[:k]"),
        ("xs[-3:]", "xs[:3]"),
        ("[n * i for i in range(1, 5 + 1)]", "[n * i for i in range(1, 5)]"),
        ("sum(xs[:i + 1])", "sum(xs[:i])"),
        ("sorted(set(xs))", "sorted(xs)"),
    ],
)
def test_a_slip_rewrites_the_one_place_where_it_applies(clean, slipped):
    assert insert_bug(f"    return {clean}\n", random.Random(0)) == f"    return {slipped}\n"


def test_code_without_a_place_for_a_slip_stays_as_it_is():
    assert insert_bug("    return len(xs)\n", random.Random(0)) == "    return len(xs)\n"


def test_one_slip_at_a_time_at_any_of_the_places():
    body = "    n = n // 2\n    return n // 3\n"
    drawn = {insert_bug(body, random.Random(seed)) for seed in range(50)}
    assert drawn == {"    n = n / 2\n    return n // 3\n", "    n = n // 2\n    return n / 3\n"}
