"""Functions of a package as problems: what is told, what the reference needs of its modules, and what is left out."""

import shutil
from textwrap import dedent

import pytest

from lit_pref.errors import UserError
from lit_pref.tasks.doctests.functions import functions_of, joined
from lit_pref.tasks.doctests.modules import modules_of

CORE = '''
"""A module. >>> not_an_example"""
import math
import os.path
import os as system
from itertools import chain, count
from typing import TypeVar

from kit.helpers import LIMIT as most, doubled
from . import helpers, text as words
import kit.helpers as h

T = TypeVar("T")
__all__ = ["f"]
_fallback = object()


def f(x: T, default=_fallback) -> T:
    """Twice a number, but at most the limit.

    >>> f(2)
    4
    >>> from kit import f as g, shout
    >>> g(50)
    100
    >>> shout(f(1))
    '2!'
    """
    # What a comment says stays.
    return min(doubled(x), most, h.LIMIT, helpers.LIMIT) or words.shout(x)


class Box:
    """Holds things.

    >>> Box()
    1
    """

    def put(self):
        """
        >>> Box().put()
        1
        """


async def later(x):
    """Some other time, it says.

    >>> later(1)
    1
    """
    return x


def one_line(x): """Told on its own line.

    >>> one_line(1)
    1
    """; return x


def no_words(x):
    """
    >>> no_words(1)
    1
    """
    return x


def yes(x):
    """Whether the answer is yes.

    >>> yes(1)
    True
    """
    return bool(x)


def address(x):
    """An object of no use.

    >>> address(1)
    <object object at 0x7f0000000001>
    """
    return object()


def uncalled(x):
    """What its examples do not call.

    >>> 1 + 1
    2
    """
    return x


def renamed(x):
    """What its examples define again.

    >>> renamed = str
    >>> renamed(1)
    '1'
    """
    return x


def copied(x: T, default=_fallback) -> T:
    """Twice a number, but at most the limit.

    >>> copied(2)
    4
    >>> from kit import copied as g, shout
    >>> g(50)
    100
    >>> shout(copied(1))
    '2!'
    """
    return x


def long(x):
    """Long, as its body is.

    >>> long(1)
    11
    """
    return x + 10  # {padding}


if True:

    def nested(x):
        """In a branch, where nobody looks.

        >>> nested(1)
        1
        """
        return x
'''
HELPERS = """
from .core import f  # modules may import from each other
LIMIT = 100


def doubled(x):
    return 2 * x if x < LIMIT else f(1)
"""
TEXT = '''
import numpy as _numpy


def shout(text):
    """Says it out loud, to everyone.

    >>> shout("a")
    'a!'
    """
    return f"{text}!"


def _array(x):
    return _numpy.array([x])


def array(x):
    """An array of one thing.

    >>> array(1).tolist()
    [1]
    """
    return _array(x)
'''


@pytest.fixture
def kit(tmp_path):
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "__init__.py").write_text("from kit.core import *\nfrom kit.text import shout\n")
    (folder / "core.py").write_text(CORE.replace("{padding}", "a" * 2000))
    (folder / "helpers.py").write_text(HELPERS)
    (folder / "text.py").write_text(TEXT)
    (folder / "broken.py").write_text('def f(:\n    """>>> f(1)"""\n')
    (folder / "latin.py").write_bytes(b'"""\xe9 >>> f(1)"""\n')
    return folder


def test_a_function_is_told_with_what_its_signature_and_its_own_lines_need(kit):
    found = {each.id: each for each in functions_of(modules_of(str(kit)), "first", 2000).functions}
    f = found["kit.core.f"]
    assert joined(f.before, f.head) == dedent('''\
        from typing import TypeVar


        T = TypeVar("T")


        _fallback = object()


        def f(x: T, default=_fallback) -> T:
            """Twice a number, but at most the limit.

            >>> f(2)
            4
            """
    ''')
    assert f.body == ("    # What a comment says stays.\n    return min(doubled(x), most, LIMIT, LIMIT) or shout(x)\n")
    # Of its package: a name of another module, under another one, and modules by their names; f itself is left out.
    for needed in ("LIMIT = 100\n", "most = LIMIT\n", "def doubled(x):\n", "def shout(text):\n"):
        assert f.helpers.count(needed) == 1
    assert "def f" not in f.helpers
    assert "numpy" not in f.helpers
    assert f.check == "assert f(2) == 4\ng = f\nassert g(50) == 100\nassert shout(f(1)) == '2!'\n"
    assert "def shout" in f.context
    assert f.location == "core.py:18"


def test_the_whole_reference_runs_and_passes(kit):
    (f,) = (each for each in functions_of(modules_of(str(kit)), "none", 2000).functions if each.name == "f")
    assert ">>>" not in f.head
    for source in (joined(f.before, f.helpers, f.head + f.body), joined(f.before, f.head + f.body, f.helpers)):
        names = {}
        exec(source, names)
        exec(f.context, tested := {"f": names["f"]})
        exec(f.check, tested | {"f": names["f"]})


def test_what_makes_no_problem_is_counted_by_reason(kit):
    found = functions_of(modules_of(str(kit)), "first", 2000)
    assert {each.name for each in found.functions} == {"f", "shout"}
    assert {name.removeprefix("kit."): why.partition(":")[0] for name, why in found.left_out.items()} == {
        "broken.py": "broken syntax",
        "latin.py": "wrong encoding",
        "core.Box:33": "is a method, a class or nested",
        "core.put:40": "is a method, a class or nested",
        "core.nested:133": "is a method, a class or nested",
        "core.later": "is asynchronous",
        "core.one_line": "has no body on lines of its own",
        "core.no_words": "no description",
        "core.yes": "shows one result throughout",
        "core.address": "shows an object's address",
        "core.uncalled": "is not called by its examples",
        "core.renamed": "is given another meaning by its examples",
        "core.copied": "is told as another one is",
        "core.long": "is too long",
        "text.array": "needs other packages than the standard library",
    }


# --- where modules come from ------------------------------------------------------------------------------------------


def test_an_installed_package_a_module_and_the_standard_library_are_sources():
    one = modules_of("textwrap")
    assert list(one.by_name) == [("textwrap",)]
    inner = modules_of("json.decoder")
    assert list(inner.by_name) == [("json", "decoder")]
    assert modules_of("json").by_name.keys() > {("json",), ("json", "decoder")}
    assert modules_of("json").importable
    every = modules_of("stdlib").by_name
    assert {("heapq",), ("json", "decoder")} < every.keys()
    assert not [name for name in every if "test" in name or name[0] in ("torch", "site-packages")]


@pytest.mark.parametrize("name", ["kit-1.0.zip", "kit-1.0.whl", "kit-1.0.tar.gz", "core.py"])
def test_archives_and_files_are_sources(kit, tmp_path, name):
    if name == "core.py":
        path = kit / name
        path.write_text('def f(x):\n    """Twice a number.\n\n    >>> f(1)\n    2\n    """\n    return 2 * x\n')
    elif name.endswith("gz"):  # of source: the package lies in a folder of the release's name
        (tmp_path / "release" / "kit-1.0" / "src").mkdir(parents=True)
        shutil.copytree(kit, tmp_path / "release" / "kit-1.0" / "src" / "kit")
        path = shutil.make_archive(str(tmp_path / "kit-1.0"), "gztar", tmp_path / "release")
    else:
        shutil.copytree(kit, tmp_path / "release" / "kit")
        made = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "release")
        path = shutil.move(made, tmp_path / name)
    modules = modules_of(str(path))
    functions = {each.name: each for each in functions_of(modules, "first", 2000).functions}
    if name == "core.py":
        assert functions["f"].id == "core.f"
    else:
        assert functions["f"].id == ("src.kit.core.f" if name.endswith("gz") else "kit.core.f")
        assert "def doubled" in functions["f"].helpers


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_package_here", "is no file or folder, and no installed package: expected the name of a package"),
        ("./nothing here", "no such file or folder, and no name of a package"),
        ("math", "is not written in Python"),
    ],
)
def test_a_source_that_is_none_is_an_error(source, message):
    with pytest.raises(UserError, match=message):
        modules_of(source)


def test_a_folder_without_python_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="holds no source code"):
        modules_of(str(tmp_path))
    (tmp_path / "a.js").write_text("x")
    with pytest.raises(UserError, match="holds no Python module"):
        modules_of(str(tmp_path))
