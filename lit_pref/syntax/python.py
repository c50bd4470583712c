"""Python source by tree-sitter: whether it parses, and its top-level statements with what they bind and use.

Text that a model wrote is never given to Python's own parser, which may crash on it, warns, and differs by version.
tree-sitter is more lenient, so `parses` also asks for bodies that are not empty, sound indentation and no Python 2;
what is left to the interpreter are rules beyond grammar (`return` outside of a function, the order of arguments).
"""

import builtins
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tree_sitter import Node, Parser, Tree

from lit_pref.syntax.languages import load
from lit_pref.syntax.names import altered, bound, text_of, touched, used

BUILTINS = frozenset(dir(builtins))
MAX_DEPTH = 300  # nodes are visited recursively, and Python stops at 1,000 calls
_EFFECTS = frozenset({"assignment", "augmented_assignment", "named_expression", "call", "await", "yield"})
_JUMPS = frozenset({"return_statement", "break_statement", "continue_statement", "global_statement"})
_LITERALS = frozenset({"string", "concatenated_string", "integer", "float", "true", "false", "none", "ellipsis"})
_CLAUSES = frozenset({"elif_clause", "else_clause", "except_clause", "except_group_clause", "finally_clause"})
_PYTHON_2 = frozenset({"print_statement", "exec_statement"})


class Statement(NamedTuple):
    """A statement of the top level.

    kind: tree-sitter's name of it; a decorated definition is named for what is decorated.
    binds: names that it gives a value; also those bound in its branches and loops.
    changes: those, and names whose items or attributes it sets or whose methods it calls for their effect.
    uses: names that it needs from elsewhere: without parameters, local variables and attributes.
    touches: those of them that it calls or hands to calls when it is executed (see `names.touched`).
    alters: those whose values a call of the functions in it may change.
    role: "active" does something; "plain" is a literal or `pass`; "idle" only looks at names, as a word of prose does.
    """

    kind: str
    text: str
    binds: frozenset[str]
    changes: frozenset[str]
    uses: frozenset[str]
    touches: frozenset[str]
    alters: frozenset[str]
    role: Literal["active", "plain", "idle"]


def parse(source: str) -> Tree:
    """The syntax tree, with nodes for errors where there are any."""
    # A parser must not be shared by threads, and making one costs less than a microsecond.
    return Parser(load("python")).parse(source.encode("utf-8", "surrogatepass"))


def parses(source: str) -> bool:
    """Whether the source is Python without a syntax error, within the limits above."""
    root = parse(source).root_node
    if root.has_error or not _aligned(root, 0):
        return False
    cursor = root.walk()
    while True:
        node = cursor.node
        if node is None or cursor.depth > MAX_DEPTH or not _sound(node):
            return False
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return True


def statements(source: str) -> list[Statement]:
    """The top-level statements of source that parses, in order, without comments."""
    return [_statement(node) for node in parse(source).root_node.named_children if node.type != "comment"]


def reach(pool: Sequence[Statement], names: frozenset[str]) -> list[int]:
    """Indices of the statements that give the names their values, directly or through what those use."""
    reached, wanted = set[int](), set(names)
    while True:
        new = {i for i, statement in enumerate(pool) if i not in reached and statement.changes & wanted}
        if not new:
            return sorted(reached)
        reached |= new
        wanted |= {name for i in new for name in pool[i].uses}


def missing(code: Sequence[Statement]) -> frozenset[str]:
    """Names that the statements use and nothing gives a value: neither they nor Python."""
    used = {name for statement in code for name in statement.uses}
    return frozenset(used - {name for statement in code for name in statement.binds} - BUILTINS)


def _sound(node: Node) -> bool:
    """False for what tree-sitter lets pass and Python 3 does not."""
    if node.type == "block":
        first = next((child for child in node.named_children if child.type != "comment"), None)
        if first is None:
            return False
        start, header = first.start_point, node.parent.start_point if node.parent else first.start_point
        return (start.row == header.row or start.column > header.column) and _aligned(node, start.column)
    if node.type in _CLAUSES and node.parent is not None:
        start, owner = node.start_point, node.parent.start_point
        return start.row == owner.row or start.column == owner.column
    if node.type == "try_statement":
        return any(child.type in _CLAUSES - {"else_clause"} for child in node.named_children)
    return node.type not in _PYTHON_2 and not (node.type == "string_start" and node.text == b"`")


def _aligned(body: Node, column: int) -> bool:
    """Whether the statements that begin a line begin at the column."""
    row = -1  # where the last one ends
    for child in body.named_children:
        if child.type == "comment":
            continue
        if child.start_point.row > row and child.start_point.column != column:
            return False
        row = child.end_point.row
    return True


def _statement(node: Node) -> Statement:
    changes = set(bound(node))
    definition = node.child_by_field_name("definition") if node.type == "decorated_definition" else None
    return Statement(
        (definition or node).type,
        text_of(node),
        frozenset(name for name, whole in changes if whole),
        frozenset(name for name, _ in changes),
        frozenset(used(node)),
        frozenset(touched(node)),
        frozenset(altered(node)),
        _role(node),
    )


def _role(node: Node) -> Literal["active", "plain", "idle"]:
    if node.type == "pass_statement":
        return "plain"
    if node.type != "expression_statement":
        return "idle" if node.type in _JUMPS else "active"
    content = node.named_children[0]
    if content.type in _LITERALS:
        return "plain"
    if content.type == "assignment" and content.child_by_field_name("right") is None:
        return "idle"
    return "active" if content.type in _EFFECTS or _has_effect(content) else "idle"


def _has_effect(node: Node) -> bool:
    return any(child.type in _EFFECTS or _has_effect(child) for child in node.named_children)
