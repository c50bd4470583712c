"""Test code that is nothing but equalities, taken apart: `assert f(arguments) == result`, all of it literals.

Most of HumanEval's and MBPP's tests are. Their calls are evaluated in the program's process, one by one, and only what
they give leaves it, as text that is compared here: a checker's process is spared, two thirds of the time. Anything
else, down to one name or loop, is a checker's work.
"""

import ast
from functools import lru_cache
from typing import NamedTuple

from lit_pref.sandbox.literal import NotPlainError, loose
from lit_pref.types import Check


class Equality(NamedTuple):
    """A call as source, the text of what it must equal, and which assert statement it is, from 0."""

    call: str
    expected: str
    number: int


@lru_cache(maxsize=1 << 14)
def equalities(check: Check) -> tuple[Equality, ...] | None:
    """The equalities that the test code consists of; None where it holds anything else, none, or has a licence."""
    if check.licence != ():
        return None
    try:
        body = ast.parse(check.code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = set(check.entry_points)
    tests = _of_function(body, names) or body
    found = []
    for index, node in enumerate(each for each in tests if not _is_idle(each, names)):
        if not isinstance(node, ast.Assert):
            return None
        if isinstance(node.test, ast.Constant) and node.test.value:
            continue
        equality = _equality(node.test, names, index)
        if equality is None:
            return None
        found.append(equality)
    return tuple(found) or None


def _of_function(body: list[ast.stmt], names: set[str]) -> list[ast.stmt] | None:
    """The body of a `def check(candidate)` that is then called with an entry point, in whose name it is given."""
    acting = [node for node in body if not _is_idle(node, names)]
    if len(acting) != 2:
        return None
    function, call = acting
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return None
    arguments = function.args
    plain = not (arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)
    if not (isinstance(call, ast.Expr) and isinstance(call.value, ast.Call) and plain and len(arguments.args) == 1):
        return None
    given = call.value
    called = isinstance(given.func, ast.Name) and given.func.id == function.name and not given.keywords
    if not called or len(given.args) != 1 or not isinstance(given.args[0], ast.Name) or given.args[0].id not in names:
        return None
    renamed = _Renamed(arguments.args[0].arg, given.args[0].id)
    return [renamed.visit(node) for node in function.body]


class _Renamed(ast.NodeTransformer):
    def __init__(self, name: str, meant: str) -> None:
        self._name, self._meant = name, meant

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._meant if node.id == self._name else node.id, node.ctx)


def _is_idle(node: ast.stmt, names: set[str]) -> bool:
    """A docstring, `pass`, or HumanEval's METADATA: a literal under a name that no equality can use."""
    if isinstance(node, ast.Assign):
        named = all(isinstance(target, ast.Name) and target.id not in names for target in node.targets)
        return named and _literal(node.value) is not None
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _equality(test: ast.expr, names: set[str], index: int) -> Equality | None:
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return None
    call, (expected,) = test.left, test.comparators
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names):
        return None
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(keyword.arg is None for keyword in call.keywords) or any(_literal(each) is None for each in arguments):
        return None
    text = _literal(expected)
    return None if text is None else Equality(ast.unparse(call), text, index)


def _literal(node: ast.expr) -> str | None:
    """The text of its value, by which equal values are known; None where it is no plain literal or equals nothing."""
    try:
        return loose(ast.literal_eval(node))
    except (ValueError, TypeError, NotPlainError, RecursionError, MemoryError):
        return None
