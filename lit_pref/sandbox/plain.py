"""What a plain value is: of Python's own types, or of the library and made of nothing but plain values.

Each kind by its parts, from which an equal one is made; the methods of a subclass are never asked. And what crosses by
its name: types, errors and functions that both processes have.
"""

import importlib
import json
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 200
MAX_BYTES = 1 << 20  # of one message
_ROOM = 20 * MAX_DEPTH  # stack frames that encoding may need beyond what a program left


class TooLargeError(ValueError):
    """The value is nested too deep or its text is too long."""


def dumps(message: Any) -> bytes:
    """One line. Raises TooLargeError."""
    line = json.dumps(message).encode() + b"\n"
    if len(line) > MAX_BYTES:
        raise TooLargeError("a value longer than the limit")
    return line


def allow_long_integers() -> None:
    """Python refuses to print integers of more than 4,300 digits; here the length of a message is limited instead."""
    sys.set_int_max_str_digits(0)


def with_room(work: Callable[[], Any]) -> Any:
    """Its result; a program that set a low recursion limit, or nearly reached it, does not disturb it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _ROOM)
    try:
        return work()
    finally:
        sys.setrecursionlimit(limit)


ATOMS: frozenset[Any] = frozenset({type(None), bool, int, float, str})  # JSON's own

MUTABLE: dict[str, Any] = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
MUTABLE |= {kind.__name__: kind for kind in (deque, OrderedDict, Counter, defaultdict)}
SPARE: dict[Any, Callable[[Any], Any]] = {
    deque: lambda value: value.maxlen,
    defaultdict: lambda value: value.default_factory,
}  # beside the contents
OF_PARTS: dict[Any, Callable[[Any], list[Any]]] = {
    tuple: lambda value: [*tuple.__iter__(value)],
    frozenset: lambda value: [*frozenset.__iter__(value)],
    range: lambda value: [value.start, value.stop, value.step],
    slice: lambda value: [value.start, value.stop, value.step],
    complex: lambda value: [complex.__complex__(value).real, complex.__complex__(value).imag],
    bytes: lambda value: [bytes.hex(value)],
    type({}.keys()): list,
    type({}.values()): list,
    type({}.items()): list,
}
FROM_PARTS: dict[str, Callable[..., Any]] = {
    "tuple": lambda *items: items,
    "frozenset": lambda *items: frozenset(items),
    "range": range,
    "slice": slice,
    "complex": complex,
    "bytes": bytes.fromhex,
    "dict_keys": lambda *items: dict.fromkeys(items).keys(),
    "dict_values": lambda *items: dict(enumerate(items)).values(),
    "dict_items": lambda *items: dict(items).items(),
}
# Of the library, with the arguments that make an equal one. Imported where one is met: each would make forks slower.
MADE: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    ("decimal", "Decimal"): lambda value: [str(value)],
    ("fractions", "Fraction"): lambda value: [value.numerator, value.denominator],
    ("datetime", "date"): lambda value: [value.year, value.month, value.day],
    ("datetime", "time"): lambda value: [value.hour, value.minute, value.second, value.microsecond, value.tzinfo],
    ("datetime", "datetime"): lambda value: [*value.timetuple()[:6], value.microsecond, value.tzinfo],
    ("datetime", "timedelta"): lambda value: [value.days, value.seconds, value.microseconds],
    ("datetime", "timezone"): lambda value: [value.utcoffset(None)],
    ("uuid", "UUID"): lambda value: [value.hex],
}
HELD: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    **{kind: OF_PARTS[kind] for kind in (tuple, frozenset, complex, bytes)},
}
HOLDERS = (*HELD, *MUTABLE.values())

# What a program may name to the checker and gets as its own there: types, exceptions, and functions of their arguments.
_SAFE_NAMES = (
    "abs all any ascii bin callable chr divmod enumerate filter format hash hex isinstance issubclass iter len"
)
_SAFE_NAMES += " map max min next oct ord pow range repr reversed round slice sorted sum zip object NotImplemented"
_SAFE_NAMES += " Ellipsis"
SAFE = {f"builtins:{name}" for name in (*_SAFE_NAMES.split(), "bool", "int", "float", "complex", "str", "bytes")}
SAFE |= {f"builtins:{name}" for name in ("bytearray", "list", "tuple", "dict", "set", "frozenset")}
SAFE |= {"types:NoneType", "dataclasses:_FIELD"} | {
    f"collections:{kind.__name__}" for kind in (deque, OrderedDict, Counter, defaultdict)
}
# What a checker names to a program: what is loaded there, and may be imported without a file.
_LOADED_NAMES = "builtins operator math collections functools itertools heapq bisect copy string types"
LOADED = set(_LOADED_NAMES.split())


def name_of(value: Any) -> str:
    """`module:qualified.name` under which the standard library has exactly this; empty for anything else."""
    if value is NotImplemented or value is Ellipsis:
        return f"builtins:{value!r}"
    if value is type(None):
        return "types:NoneType"
    if type(value).__name__ == "_FIELD_BASE":  # by which `dataclasses` knows fields
        return f"dataclasses:{value.name}"
    owner = getattr(value, "__objclass__", value)
    module, name = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if type(module) is not str or type(name) is not str or module.partition(".")[0] not in sys.stdlib_module_names:
        return ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else ""


def library_name(value: Any) -> str:
    """As `name_of`, of modules too: `module:`."""
    if type(value) is not types.ModuleType:
        return name_of(value)
    name = value.__name__
    known = type(name) is str and name.partition(".")[0] in sys.stdlib_module_names and sys.modules.get(name) is value
    return f"{name}:" if known else ""


def of_library(name: str) -> Any:
    """What stands in the standard library under `module:qualified.name`. Raises ImportError, AttributeError."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        found = getattr(found, part)
    return found


def is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def is_mutable(kind: Any) -> bool:
    """Whether values of exactly this type are shared."""
    return MUTABLE.get(kind.__name__) is kind


def kind_of(value: Any) -> Any:
    return next(kind for kind in type(value).__mro__ if is_mutable(kind))


def parts(kind: Any, value: Any) -> list[Any]:
    """Contents by the builtin type's methods, whatever a subclass's say."""
    if issubclass(kind, dict):
        return [part for pair in kind.items(value) for part in pair]
    return [*kind.__iter__(value)]


def fill(kind: Any, value: Any, parts: list[Any]) -> None:
    """Give it these contents, in the same way."""
    if kind is list:
        list.__setitem__(value, slice(None), parts)
    elif kind is bytearray:
        bytearray.__setitem__(value, slice(None), bytes(parts))
    else:
        kind.clear(value)
        if issubclass(kind, dict):
            for key, item in zip(parts[::2], parts[1::2], strict=True):
                kind.__setitem__(value, key, item)
        else:
            {set: set.update, deque: deque.extend}[kind](value, parts)  # type: ignore[operator]
