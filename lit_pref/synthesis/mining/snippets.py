"""A piece of source code that stands for itself: what the first stage of code pairs gives, and all later ones take."""

from typing import Literal, NamedTuple

SnippetKind = Literal["function", "method", "class"]


class Snippet(NamedTuple):
    """A function, method or class of a source file, with what a reader must know of the rest of the file.

    code: its text with decorators, docstring and leading comment, dedented; ended by a newline.
    language: the grammar that it was parsed by, as in `python`.
    name: qualified by its classes, as in `Shape.area`.
    signature: the code up to its body.
    doc: its docstring, or the comment that leads it, without marks and indentation; empty where there is none.
    imports: those statements of the file that bind a name which it uses, one a line.
    license: the comment at the file's head that states a licence; empty where there is none.
    origin: the file, as in `package/shapes.py` or `sources.tar.gz:package/shapes.py`; or the table and its row.
    line: where it begins there, from 1.
    """

    code: str
    language: str
    kind: SnippetKind
    name: str
    signature: str
    doc: str
    imports: str
    license: str
    origin: str
    line: int
