"""The code in what a model has written, and what of it can be a side of a pair: whole, sound, without its description.

Any of the grammars' languages. A member of a class, such as a Java method, is sound where it is so inside of one.
Not covered: code amid prose without a fence, which does not parse and so is no side.
"""

import re
from typing import NamedTuple, cast

from tree_sitter import Parser

from lit_pref.syntax.languages import LanguageName, load
from lit_pref.syntax.python import parses
from lit_pref.syntax.source_tree import SourceTree, docstring_statement
from lit_pref.synthesis.mining.snippets import Snippet

_FENCE = re.compile(r"^ {0,3}(?P<marks>`{3,}|~{3,})[ \t]*[\w+#.-]*[ \t]*$", re.MULTILINE)
_ALONE = ("", "")
_MEMBER = {  # what makes a member of a class a program
    "javascript": ("class _ {\n", "\n}\n"),
    "typescript": ("class _ {\n", "\n}\n"),
    "tsx": ("class _ {\n", "\n}\n"),
    "java": ("class _ {\n", "\n}\n"),
    "cpp": ("class _ {\n", "\n};\n"),
}


class Written(NamedTuple):
    """Code that a model or a person wrote; whole: it came to its end."""

    code: str
    whole: bool


def answered_code(text: str, finished: bool) -> Written:
    """The code of an answer: that of its first fence which is not empty, or all of it where it has no fence.

    finished: the model ended the answer. An answer that was cut is whole where its fence was closed before.
    """
    marks = list(_FENCE.finditer(text))
    if not marks:
        return Written(_ended(text), finished)
    for start, end in zip(marks[::2], [*marks[1::2], None], strict=False):
        code = text[start.end() : end.start() if end else len(text)]
        if code.strip():
            return Written(_ended(code), end is not None or finished)
    return Written("", finished)


def continued_code(signature: str, text: str, finished: bool, language: LanguageName) -> Written:
    """A signature with the body that a model wrote after it; what follows the definition is left out."""
    if not text.strip():
        return Written("", finished)
    source = signature.rstrip() + ("\n" if language == "python" else " ") + text
    encoded = source.encode("utf-8", "surrogatepass")
    definitions = SourceTree(encoded, language).definitions
    if not definitions:
        return Written(_ended(source), finished)
    end = definitions[0].top.end_byte
    more = encoded[end:].strip()  # the next definition or remark shows that the body has ended
    return Written(_ended(encoded[:end].decode("utf-8", "surrogatepass")), finished or bool(more))


def is_sound(code: str, language: LanguageName) -> bool:
    """Whether the code has no syntax error, by itself or as a member of a class."""
    if language == "python":
        return parses(code)
    parser = Parser(load(language))
    forms = [before + code + behind for before, behind in {_ALONE, _MEMBER.get(language, _ALONE)}]
    return any(not parser.parse(form.encode("utf-8", "surrogatepass")).root_node.has_error for form in forms)


def without_doc(snippet: Snippet) -> str:
    """A snippet's code without its docstring and leading comments, which would give its description away.

    "" where nothing else stands in its body.
    """
    language = cast(LanguageName, snippet.language)
    before, behind = _MEMBER.get(language, _ALONE) if snippet.kind == "method" else _ALONE
    source = (before + snippet.code + behind).encode("utf-8", "surrogatepass")
    definitions = SourceTree(source, language).definitions[1 if before else 0 :]
    if not definitions:
        return snippet.code
    first = definitions[0]
    start, end = first.top.start_byte, first.end
    doc = docstring_statement(first) if language == "python" else None
    if doc is None or doc.parent is None:
        return _ended(source[start:end].decode("utf-8", "surrogatepass"))
    if all(child.id == doc.id or child.type == "comment" for child in doc.parent.named_children):
        return ""
    line = source.rfind(b"\n", 0, doc.start_byte) + 1
    if source[line : doc.start_byte].strip():  # it shares the signature's line
        line = doc.start_byte
    behind_doc = source[doc.end_byte : end].removeprefix(b"\n")
    return _ended((source[start:line] + behind_doc).decode("utf-8", "surrogatepass"))


def _ended(code: str) -> str:
    """Without blank lines around it and ended by one newline; empty where it is blank."""
    lines = code.rstrip().split("\n")
    while len(lines) > 1 and not lines[0].strip():
        lines.pop(0)
    joined = "\n".join(lines)
    return f"{joined}\n" if joined.strip() else ""
