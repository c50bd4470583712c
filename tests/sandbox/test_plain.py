"""Values that cross between a program's process and its checker's: what they become, and what cannot pass."""

import json
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from lit_pref.sandbox import exchange, mirrors, plain

NESTED = {"a": [1, 2.5, None, True], (1, "x"): {1, 2}, "bytes": [b"\x00\xff", bytearray(b"y")]}
VALUES = [0, True, -(10**40), 1.5, float("inf"), "", "ä\ud800\n", None, [], (), {}, set(), frozenset({1}), 1 + 2j]
VALUES += [range(1, 9, 2), NESTED, [[(1,)], ((),)], {None: 1, 1.0: 2}, slice(1, None), ..., NotImplemented]
VALUES += [Counter("aab"), OrderedDict(x=1), defaultdict(int, y=2), deque([1, [2]], maxlen=5)]
VALUES += [Decimal("1.50"), Fraction(-1, 3), date(2024, 2, 29), datetime(2024, 1, 1, 3, tzinfo=UTC), timedelta(-1, 5)]
VALUES += [int, len, ValueError, type(None), Counter]


@pytest.fixture
def ends():
    """The program's end and the checker's."""
    return exchange.Exchange(1), exchange.Exchange(-1)


def crossed(sender, receiver, value):
    """As a line of JSON."""
    line = plain.dumps(sender.encode(value))
    assert line.count(b"\n") == 1
    return receiver.decode(json.loads(line))


def told(sender, receiver):
    """What a message tells beside what it says."""
    for number, parts in json.loads(json.dumps(sender.changes())):
        receiver.change(number, parts)
    receiver.forget(sender.drop())


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_equal_and_of_their_type(ends, value):
    for sender, receiver in (ends, ends[::-1]):
        back = crossed(sender, receiver, value)
        assert back == value and type(back) is type(value)
        assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict)


def test_subclasses_hold_their_builtin_value_whatever_their_methods_say(ends):
    class Liar(str):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = str.__hash__
        __str__ = __repr__ = lambda self: "'lie'"

    class Seven(int):
        __int__ = __index__ = lambda self: 8

    back = crossed(*ends, [Liar("truth"), Seven(7), namedtuple("Point", "x y")(1, 2)])
    assert [str.__str__(back[0]), int.__int__(back[1]), back[2]] == ["truth", 7, (1, 2)]
    assert [isinstance(each, kind) for each, kind in zip(back, (str, int, tuple), strict=True)] == [True] * 3
    assert [type(each).__name__ for each in back] == ["Liar", "Seven", "Point"]


def test_other_objects_stay_where_they_are(ends):
    class Pretender:
        __class__ = int

    back = crossed(*ends, [print, Pretender()])
    assert [type(each).__name__ for each in back] == ["builtin_function_or_method", "Pretender"]
    assert not isinstance(back[1], int) and mirrors.is_mirror(back[1])
    assert crossed(*ends, [ends[0].things]) is not None  # anything at all
    assert crossed(ends[1], ends[0], back[0]) is print


def test_what_is_shared_stays_one_value_until_nobody_holds_it(ends):
    program, checker = ends
    inner = [1]
    theirs = [inner, inner]
    ours = crossed(checker, program, theirs)
    assert ours[0] is ours[1]
    ours[0].append(2)
    ours.append(ours)
    told(program, checker)
    assert inner == [1, 2] and theirs[2] is theirs
    assert crossed(program, checker, ours) is theirs
    ours.pop()
    told(program, checker)
    assert theirs == [[1, 2], [1, 2]]
    del ours
    told(program, checker)
    assert not program.things and not checker.things
    theirs.append(3)
    assert crossed(checker, program, theirs) == [[1, 2], [1, 2], 3]


def test_an_object_is_kept_as_long_as_its_mirror(ends):
    program, checker = ends
    mirror = crossed(program, checker, print)
    told(program, checker)
    told(checker, program)
    assert crossed(program, checker, print) is mirror and print in program.things.values()
    del mirror
    told(checker, program)
    assert print not in program.things.values()


def test_depth_and_length_have_limits(ends):
    deep = []
    for _ in range(plain.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(plain.TooLargeError, match="deeper than 200"):
        ends[0].encode(deep)
    plain.dumps("a" * (plain.MAX_BYTES - 3))  # two quotes and the line's end
    with pytest.raises(plain.TooLargeError, match="longer"):
        plain.dumps("a" * (plain.MAX_BYTES - 2))


NOTHING = [
    {"tuple": 1},
    {"unknown": []},
    {},
    {"tuple": [], "set": []},
    {"set": [1, [{"list": [2, []]}]]},
    {"bytes": "z"},
]
NOTHING += [{"range": "abc"}, {"range": [{"tuple": []}]}, {"complex": ["x", 1]}, {"dict": [1, [1]]}, [], {"same": 7}]
NOTHING += [
    {"same": {}},
    {"same": []},
    {"object": []},
    {"object": [1, 2]},
    {"object": [1, {"named": "builtins:int"}, 3]},
]
NOTHING += [{"list": [0, []]}, {"list": [-1, []]}, {"list": [True, []]}, {"list": ["1", []]}, {"list": [1.0, []]}]
NOTHING += [{"named": name} for name in ("builtins:eval", "builtins:exec", "os:system", "builtins:str.format", "x", 1)]
NOTHING += [
    {"named": name} for name in ("builtins:ValueError.__init__", "builtins:print", "collections:abc", "os:error.x")
]
NOTHING += [{"made": [1, "Decimal", []]}, {"made": ["os", "system", ["true"]]}, {"made": ["decimal", "Decimal", ["x"]]}]
NOTHING += [{"made": ["fractions", "Fraction", [1, 0]]}, {"made": ["decimal", "Decimal", [{"named": "builtins:int"}]]}]
NOTHING += [
    {"class": [1, 2, [], []]},
    {"class": [1, "A\0", [], []]},
    {"class": [1, "A", [{"named": "builtins:bool"}], []]},
]
NOTHING += [
    {"class": [1, "A", [3], []]},
    {"class": [1, "A", [], [4]]},
    {"error": [1, {"named": "builtins:int"}, [], None]},
]
NOTHING += [
    {"error": [1, {"named": "builtins:ValueError"}, 5, None]},
    {"error": [1, {"class": [2, "A", [], []]}, [], None]},
]
NOTHING += [
    {"object": [2, {"class": [1, "A", [{"named": "builtins:int"}], []]}, held]} for held in ("1", None, 1.5, [])
]
NOTHING += [{"defaultdict": [1, [], 5]}, {"deque": [1, [], "x"]}, {"bytearray": [1, [300]]}, {"bytearray": [1, ["a"]]}]


@pytest.mark.parametrize("data", NOTHING, ids=str)
def test_what_nobody_encoded_is_refused(ends, data):
    with pytest.raises(Exception) as refused:
        ends[1].decode(data)
    assert not isinstance(refused.value, RecursionError | MemoryError | SystemError)


def test_a_program_cannot_change_what_was_never_shared(ends):
    checker, secret = ends[1], [1]
    checker.encode(print)
    for number in (0, -1, 1, 99):
        with pytest.raises((ValueError, KeyError)):
            checker.change(number, [])
    assert secret == [1]
