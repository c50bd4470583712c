"""Mutants of a program: each differs from it at one place, by a slip that tests should notice.

Made from tree-sitter's nodes, so the layout stays; the order is that of the source. After the usual operators of
mutation testing. A mutant may behave as the source does (none can tell in general), and some raise at once.
Not covered: strings, floats, annotations, parameter lists with their defaults, decorators, imports; several places.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from tree_sitter import Node

from lit_pref.syntax.names import text_of
from lit_pref.syntax.python import parse, parses

MutantKind = Literal["comparison", "off_by_one", "operator", "condition", "branch", "return", "arguments"]
"""comparison: `<` to `<=` and `>`, `==` to `!=`, `in` to `not in`, and the like.
off_by_one: an integer, or a bound of `range`, one more and one less.
operator: arithmetic, bits, `and` to `or`, a sign.
condition: of `if`, `while` and filters, negated; a `not` dropped.
branch: the body of an `if`, `elif` or `else` does nothing.
return: nothing instead of a value.
arguments: two that stand side by side, swapped."""
MUTANT_KINDS: tuple[MutantKind, ...] = get_args(MutantKind)

_COMPARISONS = {
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
}
_OPERATORS = {
    "+": "-",
    "-": "+",
    "*": "+",
    "/": "//",
    "//": "/",
    "%": "//",
    "**": "*",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "^": "&",
    "and": "or",
    "or": "and",
}
_EXEMPT = frozenset(
    {"type", "parameters", "lambda_parameters", "decorator", "import_statement", "import_from_statement"}
)
_ATOMS = frozenset({"identifier", "call", "attribute", "subscript", "parenthesized_expression"})
_BRANCHES = {"if_statement": "consequence", "elif_clause": "consequence", "else_clause": "body"}


class Mutant(NamedTuple):
    """A changed program. line: of the change, from 1."""

    source: str
    kind: MutantKind
    line: int


class _Edit(NamedTuple):
    """Bytes of the source, what stands there instead, and the kind of slip."""

    start: int
    end: int
    text: str
    kind: MutantKind


def mutants(source: str, kinds: Collection[MutantKind] = MUTANT_KINDS) -> list[Mutant]:
    """All mutants of the kinds, in the order of their places. Raises ValueError for source that does not parse."""
    if unknown := set(kinds) - set(MUTANT_KINDS):
        raise ValueError(f"kinds of mutants are {', '.join(MUTANT_KINDS)}; got {', '.join(sorted(unknown))}")
    if not parses(source):
        raise ValueError(f"source does not parse: {source[:80]!r}")
    code = source.encode("utf-8", "surrogatepass")
    edits = sorted((edit for edit in _edits(parse(source).root_node) if edit.kind in kinds), key=lambda e: e[:2])
    made: dict[str, Mutant] = {}
    for start, end, text, kind in edits:
        changed = (code[:start] + text.encode("utf-8", "surrogatepass") + code[end:]).decode("utf-8", "surrogatepass")
        if changed != source and changed not in made and parses(changed):
            made[changed] = Mutant(changed, kind, code.count(b"\n", 0, start) + 1)
    return list(made.values())


def _edits(node: Node) -> Iterator[_Edit]:
    if node.type in _EXEMPT:
        return
    if node.type in _CHANGES:
        yield from _CHANGES[node.type](node)
    for child in node.named_children:
        yield from _edits(child)


def _replace(node: Node, text: str, kind: MutantKind) -> _Edit:
    return _Edit(node.start_byte, node.end_byte, text, kind)


def _comparison(node: Node) -> Iterator[_Edit]:
    for operator in node.children_by_field_name("operators"):
        for other in _COMPARISONS.get(text_of(operator), ()):
            yield _replace(operator, other, "comparison")


def _operator(node: Node) -> Iterator[_Edit]:
    operator = node.child_by_field_name("operator")
    left = node.child_by_field_name("left")
    formats = left is not None and left.type in ("string", "concatenated_string")  # `"%s" % x` is no arithmetic
    if operator is None or formats:
        return
    plain = text_of(operator).removesuffix("=")
    if plain in _OPERATORS:
        yield _replace(operator, _OPERATORS[plain] + text_of(operator)[len(plain) :], "operator")


def _sign(node: Node) -> Iterator[_Edit]:
    operator = node.child_by_field_name("operator")
    if operator is not None and operator.type == "-":
        yield _replace(operator, "+", "operator")


def _integer(node: Node) -> Iterator[_Edit]:
    try:
        value = int(text_of(node), 0)
    except ValueError:  # an imaginary number
        return
    yield _replace(node, str(value + 1), "off_by_one")
    yield _replace(node, str(value - 1), "off_by_one")


def _call(node: Node) -> Iterator[_Edit]:
    function, arguments = (node.child_by_field_name(field) for field in ("function", "arguments"))
    if function is None or arguments is None or arguments.type != "argument_list":
        return
    starred = ("keyword_argument", "list_splat", "dictionary_splat", "comment")
    values = [child for child in arguments.named_children if child.type not in starred]
    if text_of(function) == "range":
        for bound in values[:2]:
            last = bound.child_by_field_name("right") or bound
            if last.type != "integer":  # that is off by one anyway
                text = text_of(bound) if bound.type in _ATOMS else f"({text_of(bound)})"
                yield _replace(bound, f"{text} + 1", "off_by_one")
                yield _replace(bound, f"{text} - 1", "off_by_one")
    for first, second in pairwise(values):
        yield _Edit(first.start_byte, second.end_byte, f"{text_of(second)}, {text_of(first)}", "arguments")


def _condition(node: Node) -> Iterator[_Edit]:
    # In a conditional expression it is the second of three, in a comprehension's filter the only one.
    places = {"conditional_expression": 1, "if_clause": 0}
    condition = node.child_by_field_name("condition")
    if node.type in places:
        condition = node.named_children[places[node.type]]
    if condition is None or condition.type == "not_operator":
        return
    operators = [text_of(operator) for operator in condition.children_by_field_name("operators")]
    if len(operators) == 1 and len(_COMPARISONS.get(operators[0], ())) == 1:
        return  # `==` to `!=` has done it
    yield _replace(condition, f"not ({text_of(condition)})", "condition")


def _branch(node: Node) -> Iterator[_Edit]:
    yield from _condition(node)
    body = node.child_by_field_name(_BRANCHES[node.type])
    if body is not None:
        yield _replace(body, "pass", "branch")


def _not(node: Node) -> Iterator[_Edit]:
    argument = node.child_by_field_name("argument")
    if argument is not None:
        yield _replace(node, text_of(argument), "condition")


def _return(node: Node) -> Iterator[_Edit]:
    if node.named_children:
        yield _replace(node, "return None", "return")


_CHANGES: dict[str, Callable[[Node], Iterator[_Edit]]] = {
    "comparison_operator": _comparison,
    "binary_operator": _operator,
    "augmented_assignment": _operator,
    "boolean_operator": _operator,
    "unary_operator": _sign,
    "integer": _integer,
    "call": _call,
    "while_statement": _condition,
    "conditional_expression": _condition,
    "if_clause": _condition,
    "if_statement": _branch,
    "elif_clause": _branch,
    "else_clause": _branch,
    "not_operator": _not,
    "return_statement": _return,
}
