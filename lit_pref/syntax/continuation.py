"""Completions that go on from a prompt's open function: the prompt, its body, and the helpers that it calls.

As HumanEval's completions are read; where its harness cuts at a list of stop strings, here the body ends where Python
ends it, at the first statement at column 0, and of what follows only what the body reaches is kept.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tree_sitter import Node

from lit_pref.syntax.blocks import CODE_START, Piece, pieces
from lit_pref.syntax.names import text_of
from lit_pref.syntax.needed import needed
from lit_pref.syntax.python import missing, parse, parses, statements

_DEFINITION = re.compile(r"@|(async\s+)?def\b|class\b")
_BODY_END = re.compile(r"^[ \t]*(return|yield|raise)\b", re.MULTILINE)


class OpenFunction(NamedTuple):
    """The function at a prompt's end; indent: of its body's lines."""

    name: str
    indent: str


class Continuation(NamedTuple):
    """The prompt with its body; tail_cut: an incomplete statement after the body was dropped."""

    code: str
    tail_cut: bool


def open_function(prompt: str) -> OpenFunction | None:
    """The function that the prompt's end lies in, where the prompt is code that ends in one."""
    lines = prompt.rstrip().split("\n")
    root = parse("\n".join(lines) + "\n").root_node
    node = _last_definition(root)
    while node is not None and node.type == "class_definition":
        node = _last_definition(node.child_by_field_name("body"))
    if node is None or root.has_error:
        return None
    body = node.child_by_field_name("body")
    if body is not None and body.named_children:
        indent = _indent(lines[body.named_children[0].start_point.row])
    else:
        indent = _indent(lines[node.start_point.row]) + "    "
    if not parses("\n".join([*lines, f"{indent}pass", ""])):
        return None
    return OpenFunction(text_of(node.child_by_field_name("name") or node), indent)


def continued(prompt: str, opened: OpenFunction, completion: str) -> Continuation | None:
    """The prompt with the body that the completion begins with; None where that does not parse.

    A completion without indentation has lost it, on the first line or throughout.
    """
    for source in _sources(prompt, opened, completion):
        found, place = pieces(source), len(prompt.rstrip())
        head, end = 0, len(found[0].text)
        while end < place:
            head += 1
            end += 1 + len(found[head].text)
        if found[head].kind == "code" and source[place:end].strip():
            helpers = _helpers(found[: head + 1], found[head + 1 :], opened)
            return Continuation("\n".join([source[:end].rstrip(), *helpers]), found[-1].kind == "broken")
    return None


def broken_continuation(prompt: str, opened: OpenFunction, completion: str) -> str | None:
    """The prompt with the completion's lines up to the first at column 0: a body that does not parse, if it is one."""
    lines = completion.lstrip("\n").split("\n")
    end = next((i for i, line in enumerate(lines) if i and line.strip() and line[0] not in " \t"), len(lines))
    body = "\n".join(lines[:end])
    is_body = body.startswith(opened.indent) or _BODY_END.search(body) or CODE_START.match(body.lstrip())
    return _join(prompt, body) if is_body else None


def _sources(prompt: str, opened: OpenFunction, completion: str) -> Iterator[str]:
    """What the model may have meant, likeliest first."""
    if not opened.indent.startswith("\t"):
        # Python refuses tabs after a prompt's spaces, which the model had no way to see.
        completion = re.sub(r"^[ \t]+", lambda blank: blank[0].replace("\t", "    "), completion, flags=re.MULTILINE)
    indented = completion.lstrip("\n")[:1].isspace()
    if not indented and not _BODY_END.search(completion):  # a word of prose would make a body
        return
    yield prompt + completion
    yield _join(prompt, completion)
    if indented:
        return
    body = completion.strip("\n")
    first_line, throughout = opened.indent + body, textwrap.indent(body, opened.indent)
    if "\nreturn" in body:
        yield _join(prompt.rstrip(), throughout)
    yield _join(prompt.rstrip(), first_line)
    if not _DEFINITION.match(body):  # a function of another name is no body
        yield _join(prompt.rstrip(), throughout)


def _helpers(head: Sequence[Piece], behind: Sequence[Piece], opened: OpenFunction) -> list[str]:
    body, pool = (
        [statement for piece in part if piece.kind == "code" for statement in statements(piece.text)]
        for part in (head, behind)
    )
    pool = [statement for statement in pool if opened.name not in statement.binds]
    return [pool[i].text for i in needed(pool, missing(body), opened.name)]


def _join(prompt: str, body: str) -> str:
    return prompt + body if prompt.endswith("\n") or body.startswith("\n") else f"{prompt}\n{body}"


def _last_definition(node: Node | None) -> Node | None:
    """The function or class that a body ends in."""
    last = next((child for child in reversed(node.named_children) if child.type != "comment"), None) if node else None
    if last is not None and last.type == "decorated_definition":
        last = last.child_by_field_name("definition")
    return last if last is not None and last.type in ("function_definition", "class_definition") else None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
