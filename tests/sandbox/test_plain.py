"""Values that cross between a program's process and its checker's: what they become, and what cannot pass."""

import importlib
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import pytest

from lit_pref.sandbox import plain

NESTED = {"a": [1, 2.5, None, True], (1, "x"): {1, 2}, "bytes": [b"\x00\xff", bytearray(b"y")]}
VALUES = [0, True, -(10**40), 1.5, float("inf"), "", "ä\ud800\n", None, [], (), {}, set(), frozenset({1}), 1 + 2j]
VALUES += [range(1, 9, 2), NESTED, [[(1,)], ((),)], {None: 1, 1.0: 2}]


def crossed(value):
    """There and back, as a line of JSON."""
    import json

    objects = []

    def refer(item):
        objects.append(item)
        return len(objects) - 1

    line = plain.dumps(plain.encode(value, refer))
    assert line.count(b"\n") == 1
    return plain.decode(json.loads(line), lambda number, kind: (kind, number))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_equal_and_of_their_type(value):
    back = crossed(value)
    assert back == value and type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict)


def test_subclasses_come_as_the_builtin_value_that_they_hold():
    class Liar(str):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = str.__hash__
        __str__ = __repr__ = lambda self: "'lie'"

    class Seven(int):
        __int__ = __index__ = lambda self: 8

    back = crossed([Liar("truth"), Seven(7), Counter("aab"), OrderedDict(x=1), defaultdict(int, y=2)])
    assert back == ["truth", 7, {"a": 2, "b": 1}, {"x": 1}, {"y": 2}]
    assert [type(each) for each in back] == [str, int, dict, dict, dict]
    assert crossed(namedtuple("Point", "x y")(1, 2)) == (1, 2)


def test_other_objects_stay_where_they_are():
    class Pretender:
        __class__ = int

    assert crossed([len, Pretender()]) == [("builtin_function_or_method", 0), ("Pretender", 1)]


def test_depth_and_length_have_limits():
    deep = []
    for _ in range(plain.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(plain.TooLargeError, match="deeper than 64"):
        plain.encode(deep, len)
    endless: list = []
    endless.append(endless)
    with pytest.raises(plain.TooLargeError):
        plain.encode(endless, len)
    plain.dumps("a" * (plain.MAX_BYTES - 3))  # two quotes and the line's end
    with pytest.raises(plain.TooLargeError, match="longer"):
        plain.dumps("a" * (plain.MAX_BYTES - 2))


NOTHING = [{"tuple": 1}, {"unknown": []}, {}, {"tuple": [], "set": []}, {"set": [[]]}, {"dict": [[1]]}, {"bytes": "zz"}]
NOTHING += [{"object": []}, {"range": "abc"}, {"complex": ["x", 1]}, {"dict": [[[], 1]]}]


@pytest.mark.parametrize("data", NOTHING, ids=str)
def test_what_nobody_encoded_is_refused(data):
    with pytest.raises(ValueError):
        plain.decode(data, lambda number, kind: None)


def test_the_inside_of_the_sandbox_needs_the_standard_library_alone():
    """Its files import each other by their bare names, in a folder of their own."""
    folder = str(Path(plain.__file__).parent)
    sys.path.insert(0, folder)
    try:
        for name in ("checker", "served", "program", "imports", "isolate", "seccomp", "wire", "literal", "runner"):
            importlib.import_module(name)
            assert not name.startswith("lit_pref")
    finally:
        sys.path.remove(folder)
        for name in {path.stem for path in Path(folder).glob("*.py")} & sys.modules.keys():
            del sys.modules[name]
