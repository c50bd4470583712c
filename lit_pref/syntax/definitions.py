"""Where the functions, methods and classes of a syntax tree are, and its import statements and licence.

One walk, which does not enter the bodies of functions. What a definition says is worked out by `source_tree.py`.
Not covered: definitions nested deeper than `MAX_DEPTH` containers, and what `languages.py` leaves out.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tree_sitter import Node

from lit_pref.syntax.languages import Grammar
from lit_pref.syntax.names import text_of

MAX_DEPTH = 100  # the walk is recursive, and Python stops at 1,000 calls
_LICENSE = re.compile(rb"licen[cs]e|copyright|\(c\)|SPDX-|all rights reserved|public domain", re.IGNORECASE)
_NEWLINE = ord("\n")


class Definition(NamedTuple):
    """Where a definition is in its file, in bytes.

    node: itself; top: with what wraps it, such as decorators or `export`.
    block: its body, where the grammar names that.
    leading: the comments and attributes before it.
    scope: the classes around it, each followed by a dot.
    has_error: there is a syntax error in it, or nothing in its body where the grammar lets that pass.
    start, end: with leading comments and a closing semicolon; body: where its body begins.
    """

    node: Node
    top: Node
    block: Node | None
    leading: Sequence[Node]
    scope: str
    is_class: bool
    has_error: bool
    start: int
    end: int
    body: int


class FoundDefinitions:
    """The definitions under a root, in the order in which they begin: a class comes before its methods.

    imports: nodes that may be import statements.
    license: the block of comments at the file's head that states a licence.
    """

    def __init__(self, source: bytes, root: Node, grammar: Grammar) -> None:
        self._source = source
        self._grammar = grammar
        self._roles = grammar.functions | grammar.classes | grammar.holders.keys()
        self.definitions: list[Definition] = []
        self.imports: list[Node] = []
        self.license = self._license_of(root)
        self._license_end = self.license[-1].end_byte if self.license else 0
        self._walk(root, "", (), 0)

    def _walk(self, parent: Node, scope: str, leading: Sequence[Node], depth: int) -> None:
        grammar = self._grammar
        before = leading
        end = before[-1].end_byte if before else -1
        for child in parent.named_children:
            kind = child.type
            if kind in grammar.comments or kind in grammar.prefixes:
                breaks = self._breaks(end, child)
                ends_line = breaks == 0 and end >= 0  # of code: `x = 1  # one`
                before = () if ends_line else (*before, child) if breaks <= 1 else (child,)
            else:
                if before and self._breaks(end, child) > 1:
                    before = ()
                self._visit(child, child, scope, before, depth)
                before = ()
            end = child.end_byte

    def _breaks(self, end: int, node: Node) -> int:
        """Newlines between the end of one node and the next."""
        if end > 0 and self._source[end - 1] == _NEWLINE:
            end -= 1  # Rust's line comments hold theirs
        return self._source.count(b"\n", max(0, end), node.start_byte)

    def _visit(self, node: Node, top: Node, scope: str, leading: Sequence[Node], depth: int) -> None:
        grammar, kind = self._grammar, node.type
        if kind in grammar.imports:
            self.imports.append(node)
        if kind in self._roles:
            self._define(node, top, scope, leading, depth)
        elif kind in grammar.wrappers:
            inside = [child for child in node.named_children if self._matters(child.type)]
            for child in inside:
                self._visit(child, top if len(inside) == 1 else child, scope, leading, depth)
        elif kind in grammar.containers and depth < MAX_DEPTH:
            self._walk(node, scope, (), depth + 1)

    def _matters(self, kind: str) -> bool:
        return kind in self._roles or kind in self._grammar.wrappers or kind in self._grammar.containers

    def _define(self, node: Node, top: Node, scope: str, leading: Sequence[Node], depth: int) -> None:
        grammar = self._grammar
        holder = grammar.holders.get(node.type)
        value = node if holder is None else node.child_by_field_name(holder)
        if value is None:
            return
        kind = value.type
        is_class = kind in grammar.classes
        if not (is_class or kind in grammar.functions):
            return
        block = value.child_by_field_name("body")
        if block is None and kind not in grammar.unnamed_bodies:
            return
        if leading and leading[0].start_byte < self._license_end:
            leading = [each for each in leading if each.start_byte >= self._license_end]
        start, end = (leading[0] if leading else top).start_byte, top.end_byte
        end += self._source[end : end + 1] == b";"
        body = self._source.find(b"{", value.start_byte, end) if block is None else block.start_byte
        has_error = top.has_error or (block is not None and body == block.end_byte)  # `def f():` and no more
        self.definitions.append(Definition(node, top, block, leading, scope, is_class, has_error, start, end, body))
        if is_class and block is not None and depth < MAX_DEPTH:
            # Python's grammar puts the comments before the first method in front of the block.
            head = [c for c in value.named_children if c.type == "comment" and c.end_byte <= block.start_byte]
            self._walk(block, f"{scope}{own_name(node, grammar)}.", head, depth + 1)

    def _license_of(self, root: Node) -> Sequence[Node]:
        block: list[Node] = []
        for child in root.named_children:
            is_comment = child.type in self._grammar.comments
            if block and (not is_comment or self._breaks(block[-1].end_byte, child) > 1):
                if _LICENSE.search(self._source, block[0].start_byte, block[-1].end_byte):
                    return block
                block = []
            if not is_comment:
                return ()
            block.append(child)
        return ()


def own_name(node: Node, grammar: Grammar) -> str:
    """A definition's name, as in `area` or, where the language writes it so, `Shape.area`."""
    named = node.child_by_field_name(grammar.names.get(node.type, "name"))
    if named is None:
        return ""
    if named.type == "identifier":
        return text_of(named)
    if named.type == "generic_type":  # Rust's `impl<T> Stack<T>`
        named = named.child_by_field_name("type") or named
    while named.type != "operator_cast":  # C's declarators: `*area(int x)`
        inner = named.child_by_field_name("declarator")
        if inner is None and named.type in ("reference_declarator", "parenthesized_declarator"):
            inner = named.named_children[-1]
        if inner is None:
            break
        named = inner
    name = "".join(text_of(named).partition("(")[0].split()).replace("::", ".")
    receiver = node.child_by_field_name("receiver")
    if receiver is not None:  # of Go's methods
        types = [text_of(part) for part in _descendants(receiver) if part.type == "type_identifier"]
        return f"{types[0]}.{name}" if types else name
    return name


def _descendants(node: Node) -> list[Node]:
    return [node, *(inner for child in node.named_children for inner in _descendants(child))]
