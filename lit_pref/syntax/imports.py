"""The import statements of a file, and which of them a piece of it needs.

A statement is needed where a name that it binds stands in the piece as an identifier: not in a string, a comment or
after a dot. Statements that bind what only the imported file knows (`*`, `#include`) are needed everywhere.
Not covered: a local variable or parameter of the same name, which counts as a use; names in quoted annotations;
imports of an inner module, which count for the whole file.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from tree_sitter import Node, QueryCursor

from lit_pref.syntax.languages import GRAMMARS, LanguageName, binding_query
from lit_pref.syntax.names import text_of
from lit_pref.syntax.words import Sieve, Words, is_word, word_hash

_VERSION = re.compile(r"/v\d+$")  # of a Go module, which is no part of its name
_USES = frozenset(  # not those of members, labels and fields
    {"identifier", "type_identifier", "namespace_identifier", "package_identifier", "shorthand_property_identifier"}
)


class Imports:
    """Statements in order, and where in the file the names stand that they bind."""

    def __init__(self, source: bytes, language: LanguageName, nodes: Sequence[Node], words: Words) -> None:
        self._source = source
        self._statements: list[str] = []
        self._everywhere: list[int] = []
        self._binders: dict[bytes, list[int]] = {}  # by name, the statements that bind it
        for node in nodes:
            self._read(node, language)
        hashes = np.array([word_hash(name.decode("utf-8", "surrogatepass")) for name in self._binders], np.uint64)
        found = Sieve(hashes).places(words.hashes)
        starts, ends = words.starts[found].tolist(), words.ends[found].tolist()
        # What a name binds stands for the name: one object, quick to compare. Some that were found are other words.
        self._starts: list[int] = starts
        self._ends: list[int] = ends
        self._bound = [self._binders.get(source[start:end]) for start, end in zip(starts, ends, strict=True)]
        self._is_use: dict[int, bool] = {}  # what a class and its methods both ask

    def _read(self, node: Node, language: LanguageName) -> None:
        cursor = QueryCursor(binding_query(language))
        if node.type in GRAMMARS[language].wrappers:
            cursor.set_max_start_depth(1)  # `const a = require("a")`, not what is required inside of what it holds
        captures = cursor.captures(node)
        if "any" in captures:
            self._everywhere.append(len(self._statements))
        elif not captures:
            return
        for name in _names(captures):
            if is_word(name):
                self._binders.setdefault(name.encode("utf-8", "surrogatepass"), []).append(len(self._statements))
        prefix = "import " if node.type == "import_spec" else ""  # Go's, out of its brackets
        self._statements.append(prefix + _one_line(text_of(node)))

    def needed_by(self, node: Node) -> str:
        """The statements that the node needs, one a line, without a newline at the end."""
        needed, bound = set(self._everywhere), self._bound
        first = bisect_left(self._starts, node.start_byte)
        for index in range(first, bisect_left(self._starts, node.end_byte, first)):
            statements = bound[index]
            if statements is not None and statements[0] not in needed and self._uses(index, node):
                needed.update(statements)
        return "\n".join([self._statements[index] for index in sorted(needed)]) if needed else ""

    def _uses(self, index: int, node: Node) -> bool:
        """Whether the word, which lies in the node, stands for what the name is bound to."""
        known = self._is_use.get(index)
        if known is None:
            start = self._starts[index]
            before = self._source[max(0, start - 2) : start]
            if before[-1:] == b"." and before != b"..":  # `...name` is a use
                known = False
            else:
                found = node.descendant_for_byte_range(start, self._ends[index])
                known = found is not None and found.type in _USES
            self._is_use[index] = known
        return known


def _names(captures: dict[str, list[Node]]) -> Iterator[str]:
    """The names that a statement's captures bind."""
    yield from map(text_of, captures.get("name", ()))
    for path in captures.get("path", ()):
        yield _VERSION.sub("", text_of(path).strip('"`')).rpartition("/")[2]


def _one_line(statement: str) -> str:
    statement = statement.strip()
    if "\n" not in statement or "#" in statement or "//" in statement:
        return statement  # a comment at a line's end would swallow what follows
    return " ".join(statement.replace("\\\n", " ").split())
