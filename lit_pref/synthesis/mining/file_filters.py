"""Files that a program wrote, by the words at their head and by the lengths of their lines. The rules are ours [D].

Not covered: generated code without a notice, data tables written as code with short lines.
"""

import re

_HEAD = 3000  # bytes in which a notice stands, below a licence
_COMMENT = rb"^[ \t]*(?:#|//|/\*|\*|;|\"\"\"|'''|<!--|--)"
_NOTICE = re.compile(  # in a comment or docstring; https://go.dev/s/generatedcode and its like in other languages
    _COMMENT + rb"[^\n]*(?:@generated\b|\bdo not (?:edit|modify)\b|\bauto[- ]?generated\b|\bcode generated\b"
    rb"|\b(?:automatically|machine)[- ]generated\b|\bgenerated (?:automatically|by the protocol buffer|protocol buffer)"
    rb"|\bgenerated (?:by|from|with)\b[^\n]*"
    rb"\b(?:antlr|protoc|swig|cython|bison|flex|thrift|swagger|openapi|jflex|javacc))",
    re.IGNORECASE | re.MULTILINE,
)


def is_generated(source: bytes) -> bool:
    """Whether a notice at its head says that a program wrote it."""
    head = source[:_HEAD]
    lowered = head.lower()
    return (b"generated" in lowered or b"do not" in lowered) and _NOTICE.search(head) is not None


def is_minified(source: bytes, longest: int, mean: float) -> bool:
    """Whether a line is longer than `longest` bytes without its newline, or lines are longer than `mean` on average."""
    breaks = source.count(b"\n")
    lines = breaks + (not source.endswith(b"\n"))
    return len(source) - breaks > mean * lines or _has_line_over(source, longest)


def _has_line_over(source: bytes, longest: int) -> bool:
    start = 0
    while len(source) - start > longest:
        # As far on as a line may reach: most lines are never looked at.
        newline = source.rfind(b"\n", start, start + longest + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False
