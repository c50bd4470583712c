"""Names that a Python syntax node binds, those that it needs from outside, and those that running it may change.

Not covered: names reached by strings (`globals()["f"]`, quoted annotations), by `import *`, and captures of `match`,
which count as used.
"""

from collections.abc import Iterator

from tree_sitter import Node

IMPORTS = frozenset({"import_statement", "import_from_statement", "future_import_statement"})
DEFINITIONS = frozenset({"function_definition", "class_definition"})
_NAMING_FIELDS = {"attribute": "attribute", "keyword_argument": "name", **dict.fromkeys(DEFINITIONS, "name")}
_SHOWS = frozenset({"print", "pprint"})  # what is only shown changes nothing
_COMPREHENSIONS = frozenset(
    {"list_comprehension", "set_comprehension", "dictionary_comprehension", "generator_expression"}
)


def text_of(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "surrogatepass")


def bound(node: Node) -> Iterator[tuple[str, bool]]:
    """Names that a scope's code binds: (name, whether itself rather than an item or attribute of it)."""
    kind = node.type
    if kind in DEFINITIONS:
        yield from _targets(node.child_by_field_name("name"))
        return
    if kind in IMPORTS:
        for name in node.children_by_field_name("name"):
            alias = name.child_by_field_name("alias")
            yield from _targets(alias or name.named_children[0])
        return
    if kind == "lambda" or kind in _COMPREHENSIONS:
        return
    if kind == "assignment" and node.child_by_field_name("right") is None:
        return  # `x: int` binds nothing
    if kind in ("assignment", "augmented_assignment", "for_statement", "type_alias_statement"):
        yield from _targets(node.child_by_field_name("left"))
    elif kind == "named_expression":
        yield from _targets(node.child_by_field_name("name"))
    elif kind == "as_pattern":
        yield from _targets(node.child_by_field_name("alias"))
    elif kind == "expression_statement" and node.named_children[0].type == "call":
        method = node.named_children[0].child_by_field_name("function")
        if method is not None and method.type == "attribute":
            yield from _targets(method)
    for child in node.named_children:
        yield from bound(child)


def _targets(node: Node | None, whole: bool = True) -> Iterator[tuple[str, bool]]:
    if node is None:
        return
    if node.type == "identifier":
        yield text_of(node), whole
    elif node.type == "attribute":
        yield from _targets(node.child_by_field_name("object"), whole=False)
    elif node.type == "subscript":
        yield from _targets(node.child_by_field_name("value"), whole=False)
    elif node.type not in ("call", "string"):
        for child in node.named_children:
            yield from _targets(child, whole)


def used(node: Node) -> set[str]:
    """Names that a node reads from outside of the scopes in it."""
    if node.type == "identifier":
        return {text_of(node)}
    if node.type in IMPORTS:
        return set()
    skipped = _NAMING_FIELDS.get(node.type)
    names = set[str]()
    for index, child in enumerate(node.children):
        if skipped is None or node.field_name_for_child(index) != skipped:
            names |= used(child)
    return names - _local(node)


def touched(node: Node) -> set[str]:
    """Names that the code of a node calls or hands to calls as it is executed, and the bases of classes.

    What is printed or asserted is left out, and so are the bodies of functions: they run when they are called.
    """
    if node.type in ("assert_statement", "lambda") or (node.type == "call" and _callee(node) in _SHOWS):
        return set()
    if node.type in ("call", "decorator", "delete_statement", "argument_list"):
        return used(node)
    if node.type == "function_definition":
        return set()
    return {name for child in node.named_children for name in touched(child)} - _local(node)


def altered(node: Node) -> set[str]:
    """Names from outside of the functions in a node whose values a call of these may change."""
    if node.type != "function_definition":
        return {name for child in node.named_children for name in altered(child)}
    body = node.child_by_field_name("body")
    changes = {name for name, _ in bound(body)} | touched(body) | _inner(body) if body else set[str]()
    return changes - _local(node)


def _inner(body: Node) -> set[str]:
    return {name for child in body.named_children for name in altered(child)}


def _callee(call: Node) -> str:
    function = call.child_by_field_name("function")
    return text_of(function).rpartition(".")[2] if function is not None else ""


def _local(scope: Node) -> set[str]:
    """Names that exist only inside of a function, lambda or comprehension."""
    if scope.type in _COMPREHENSIONS:
        clauses = [child for child in scope.named_children if child.type == "for_in_clause"]
        return {name for clause in clauses for name, _ in _targets(clause.child_by_field_name("left"))}
    if scope.type not in ("function_definition", "lambda"):
        return set()
    parameters, body = (scope.child_by_field_name(field) for field in ("parameters", "body"))
    names = {name for child in (parameters.named_children if parameters else ()) for name in _parameter(child)}
    if body is not None and scope.type == "function_definition":
        names |= {name for name, whole in bound(body) if whole} - _declared_global(body)
    return names


def _parameter(node: Node) -> Iterator[str]:
    """A parameter's name, whatever its annotation and default."""
    if node.type == "identifier":
        yield text_of(node)
    else:
        name = node.child_by_field_name("name") or next(iter(node.named_children), None)
        if name is not None:
            yield from _parameter(name)


def _declared_global(body: Node) -> set[str]:
    found = set[str]()
    for child in body.named_children:
        if child.type == "global_statement":
            found |= {text_of(name) for name in child.named_children}
        elif child.type not in DEFINITIONS:
            found |= _declared_global(child)
    return found
