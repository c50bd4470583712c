"""A parsed source file, and what its definitions say: code, signature, name, documentation, imports.

One parse a file; each text is worked out when it is asked for, so that what is filtered out by its place costs nothing.
Not covered: string literals over several lines, whose lines are dedented with the code around them.
"""

from functools import cached_property
from typing import Literal

from tree_sitter import Node, Parser

from lit_pref.syntax.comments import comment_text, docstring_text
from lit_pref.syntax.definitions import Definition, FoundDefinitions, own_name
from lit_pref.syntax.imports import Imports
from lit_pref.syntax.languages import GRAMMARS, LanguageName, load
from lit_pref.syntax.words import Words, words

_NEWLINE = ord("\n")


class SourceTree:
    """A source file by its syntax tree.

    source: UTF-8 without a byte order mark.
    definitions: in the order in which they begin.
    """

    def __init__(self, source: bytes, language: LanguageName) -> None:
        self.source = source
        self.language = language
        # A parser must not be shared by threads, and making one costs less than a microsecond.
        self._tree = Parser(load(language)).parse(source)
        self._found = FoundDefinitions(source, self._tree.root_node, GRAMMARS[language])
        self.definitions = self._found.definitions

    @cached_property
    def words(self) -> Words:
        return words(self.source)

    @cached_property
    def license(self) -> str:
        """The comment at the file's head that states a licence; empty where there is none."""
        nodes = self._found.license
        return self._comment(nodes[0].start_byte, nodes[-1].end_byte) if nodes else ""

    def code(self, definition: Definition) -> str:
        """Its text with leading comments and decorators, dedented; ended by a newline."""
        return self._dedented(definition.start, definition.end) + "\n"

    def signature(self, definition: Definition) -> str:
        """Its text up to its body, without leading comments and Python's decorators."""
        head = definition.node if self.language == "python" else definition.top
        return self._dedented(head.start_byte, definition.body)

    def name(self, definition: Definition) -> str:
        """Its name, qualified by its classes."""
        return definition.scope + own_name(definition.node, GRAMMARS[self.language])

    def kind(self, definition: Definition) -> Literal["function", "method", "class"]:
        if definition.is_class:
            return "class"
        if definition.scope:
            return "method"
        # C++ and Go define methods outside of their classes, and JavaScript may assign them.
        outside = self.language != "python" and "." in own_name(definition.node, GRAMMARS[self.language])
        return "method" if outside else "function"

    def line(self, definition: Definition) -> int:
        """The line that its code begins on, from 1."""
        first = definition.leading[0] if definition.leading else definition.top
        return first.start_point.row + 1

    def doc(self, definition: Definition) -> str:
        """Its docstring, or the comment that leads it."""
        if self.language == "python":
            statement = docstring_statement(definition)
            if statement is not None:
                return docstring_text(self._text(statement.start_byte, statement.end_byte))
        if not definition.leading:
            return ""
        comments = [node for node in definition.leading if node.type in GRAMMARS[self.language].comments]
        return "\n".join(self._comment(node.start_byte, node.end_byte) for node in comments).strip()

    def imports(self, definition: Definition) -> str:
        """The import statements of the file that it needs, one a line."""
        return self._imports.needed_by(definition.top)

    @cached_property
    def _imports(self) -> Imports:
        return Imports(self.source, self.language, self._found.imports, self.words)

    def _comment(self, start: int, end: int) -> str:
        return comment_text(self._text(start, end))

    def _dedented(self, start: int, end: int) -> str:
        text = self.source[start:end].rstrip()
        if start and self.source[start - 1] != _NEWLINE and b"\n" in text:
            indent = self.source[self.source.rfind(b"\n", 0, start) + 1 : start]
            if indent.isspace():
                text = text.replace(b"\n" + indent, b"\n")
        return text.decode("utf-8", "replace")

    def _text(self, start: int, end: int) -> str:
        return self.source[start:end].decode("utf-8", "replace")


def docstring_statement(definition: Definition) -> Node | None:
    """What the body of a Python function or class begins with, where that is a string and no more."""
    first = None if definition.block is None else definition.block.named_child(0)
    while first is not None and first.type == "comment":
        first = first.next_named_sibling
    if first is None or first.type != "expression_statement":
        return None
    literal = first.named_child(0)
    return first if literal is not None and literal.type == "string" else None
