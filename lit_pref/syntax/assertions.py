"""Test code taken apart: single assertions, and calls, of one function.

An assertion is read at the top level, in a loop or the like there, and in functions named `test...` or `check`, of no
parameter or of one that the function under test is passed to. Those that hold nothing but asserts are taken apart.
Not covered: test classes, fixtures and decorated tests, asserts that do not name the function.
"""

from collections.abc import Iterator

from tree_sitter import Node

from lit_pref.syntax.names import text_of, used
from lit_pref.syntax.python import BUILTINS, Statement, parse, parses, reach, statements

Assertion = tuple[str, ...]
"""Statements to run in turn: what the last one needs, and the assertion."""


def assertions(source: str, entry_point: str) -> list[Assertion]:
    """The distinct assertions on the entry point, in order; none of source that does not parse."""
    body = statements(source) if parses(source) else []
    found = dict.fromkeys(
        (*_support(body[:index], needed, entry_point), *texts)
        for index, statement in enumerate(body)
        for texts, needed in _split(statement, entry_point)
    )
    return list(found)


def joined(parts: list[Assertion]) -> str:
    """One source that runs all of them, with what they share once."""
    return "".join(f"{text}\n" for text in dict.fromkeys(text for part in parts for text in part))


def literal_calls(source: str, entry_point: str) -> list[str]:
    """The distinct calls of the entry point whose arguments name nothing but builtins, in order."""
    found = dict.fromkeys(_calls(parse(source).root_node, entry_point)) if parses(source) else {}
    return list(found)


def _support(before: list[Statement], needed: frozenset[str], entry_point: str) -> list[str]:
    pool = [s for s in before if entry_point not in s.binds and not _is_test(s)]
    return [pool[index].text for index in reach(pool, needed - {entry_point})]


def _split(statement: Statement, entry_point: str) -> Iterator[tuple[Assertion, frozenset[str]]]:
    """Each assertion in a statement, and the names that it uses."""
    if not _is_test(statement):
        asserts = "assert" in statement.text and statement.kind not in ("function_definition", "class_definition")
        if asserts and entry_point in statement.uses:
            yield (statement.text,), statement.uses
        return
    function = parse(statement.text).root_node.named_children[0]
    name, parameters, block = (function.child_by_field_name(field) for field in ("name", "parameters", "body"))
    if name is None or parameters is None or block is None or len(parameters.named_children) > 1:
        return
    lines = [child for child in block.named_children if child.type != "comment"]
    lines = (
        lines[1:] if lines[0].type == "expression_statement" and lines[0].named_children[0].type == "string" else lines
    )
    if all(line.type == "assert_statement" for line in lines) and not parameters.named_children:
        for line in lines:
            if entry_point in used(line):
                yield (text_of(line),), frozenset(used(line))
    elif parameters.named_children or entry_point in statement.uses:
        argument = entry_point if parameters.named_children else ""
        yield (statement.text, f"{text_of(name)}({argument})"), statement.uses


def _is_test(statement: Statement) -> bool:
    named = any(name.startswith("test") or name == "check" for name in statement.binds)
    return statement.kind == "function_definition" and named and not statement.text.startswith("@")


def _calls(node: Node, entry_point: str) -> Iterator[str]:
    function = node.child_by_field_name("function") if node.type == "call" else None
    if function is not None and text_of(function) == entry_point and used(node) <= BUILTINS | {entry_point}:
        yield text_of(node)
        return
    for child in node.named_children:
        yield from _calls(child, entry_point)
