"""Values as JSON that keeps their types, their identity and what is shared: what crosses between two processes.

Plain values cross whole: builtin ones, and those of the library that hold nothing but plain values (`Decimal`, `deque`,
...). Mutable ones are numbered and *shared*: each side has its own, both have one number, and every message brings the
contents of those that its sender changed since the last, so that `a.sort()` in one process sorts the list of the other.
Anything else stays where it is: the other side gets a mirror (`mirrors.py`) that knows its number. An object of a
subclass of a builtin type is both, a mirror that holds the value. Numbers below 0 were given by the checker.

Each side tells the other which numbers nobody holds there any more, so that a test of many calls does not grow.
Decoding makes plain values and mirrors only: nothing that a program sends is executed.
"""

import importlib
import operator
import sys
import types
from collections import deque
from collections.abc import Iterable
from typing import Any

from lit_pref.sandbox import mirrors, plain

_ALONE = (lambda things: sys.getrefcount(things[0]))({0: []})  # references to what only a table holds


class Exchange:
    """What two processes know of each other's values, as one of them keeps it.

    sign: 1 in a program's process, -1 in a checker's: of the numbers that it gives.
    """

    def __init__(self, sign: int) -> None:
        self._sign, self._count = sign, 0
        self.things: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}  # by id: what is in `things` is alive
        self._contents: dict[int, list[Any]] = {}  # of shared values, as both sides last knew them
        self._owned: set[int] = set()  # objects that the other side has mirrors of

    # --- sending ------------------------------------------------------------------------------------------------------

    def encode(self, value: Any, depth: int = 0) -> Any:
        """What `json` can write. Raises TooLargeError."""
        kind: Any = type(value)
        if kind in plain.ATOMS:
            return value
        if depth > plain.MAX_DEPTH:
            raise plain.TooLargeError(f"a value nested deeper than {plain.MAX_DEPTH}")
        number = self._numbers.get(id(value))
        if number is not None:
            return {"same": number}
        if kind in plain.OF_PARTS:
            return {kind.__name__: self._encoded(plain.OF_PARTS[kind](value), depth)}
        if plain.is_mutable(kind):
            number, parts = self._add(value), plain.parts(kind, value)
            self._contents[number] = parts
            spare = [self.encode(plain.SPARE[kind](value), depth + 1)] if kind in plain.SPARE else []
            return {kind.__name__: [number, self._encoded(parts, depth), *spare]}
        made = kind.__module__, kind.__qualname__
        if made in plain.MADE and getattr(sys.modules.get(made[0]), made[1], None) is kind:
            arguments = plain.MADE[made](value)
            if all(type(each) in plain.ATOMS or each.__class__.__module__ == "datetime" for each in arguments):
                return {"made": [*made, self._encoded(arguments, depth)]}
        name = self._named(value)
        return {"named": name} if name else self._object(value, depth)

    def _encoded(self, parts: Iterable[Any], depth: int) -> list[Any]:
        return [part if type(part) in plain.ATOMS else self.encode(part, depth + 1) for part in parts]

    def _named(self, value: Any) -> str:
        """Its name where the other side takes it by name."""
        name = plain.name_of(value) if type(value) is not types.ModuleType else ""
        if self._sign > 0:
            return name if name in plain.SAFE or (name and plain.is_error(value)) else ""
        return name if name.partition(":")[0].lstrip("_") in plain.LOADED or (name and plain.is_error(value)) else ""

    def _object(self, value: Any, depth: int) -> dict[str, Any]:
        """An object that stays here."""
        number = self._add(value)
        self._owned.add(number)
        if BaseException in type(value).__mro__:
            kind, cause = self.encode(type(value), depth + 1), self.encode(value.__cause__, depth + 1)
            return {"error": [number, kind, self._encoded(value.args, depth), cause]}
        if type in type(value).__mro__:
            return self._described(value, number, depth)
        parts = [number, self._class_of(value, depth)]
        for kind in type(value).__mro__:
            if plain.is_mutable(kind):
                self._contents[number] = plain.parts(kind, value)
                parts.append(self._encoded(self._contents[number], depth))
                break
            if kind in plain.HELD:
                held = plain.HELD[kind](value)
                parts.append(self._encoded(held, depth) if type(held) is list else held)
                break
        return {"object": parts}

    def _class_of(self, value: Any, depth: int) -> dict[str, Any]:
        """For a mirror: never by its name."""
        kind = type(value)
        if id(kind) in self._numbers:
            return {"same": self._numbers[id(kind)]}
        number = self._add(kind)
        self._owned.add(number)
        return self._described(kind, number, depth)

    def _described(self, kind: type, number: int, depth: int) -> dict[str, Any]:
        if kind.__module__ == "builtins" and kind.__name__ in mirrors.STANDING:
            return {"standing": [number, kind.__name__]}
        bases = [self.encode(base, depth + 1) for base in kind.__bases__ if base is not object]
        return {"class": [number, kind.__name__, bases, _methods(kind)]}

    def _add(self, value: Any, number: int = 0) -> int:
        if not number:
            self._count += self._sign
            number = self._count
        self.things[number] = value
        self._numbers[id(value)] = number
        return number

    def changes(self) -> list[list[Any]]:
        """[number, contents] of each shared value that is not as the other side last knew it."""
        changed = []
        for number in list(self._contents):
            value, known = self.things[number], self._contents[number]
            now = plain.parts(plain.kind_of(value), value)
            # By identity: nothing of a program's is asked, and what is equal may still be another object.
            if len(now) != len(known) or not all(map(operator.is_, now, known)):
                self._contents[number] = now
                changed.append([number, self._encoded(now, 0)])
        return changed

    def drop(self) -> list[int]:
        """Forget what nobody here holds any more; its numbers, for the other side."""
        gone: list[int] = []
        while True:
            found = [number for number in self.things if number not in self._owned and self._is_alone(number)]
            for number in found:
                self._forget(number)
            if not found:
                return gone
            gone += found

    def _is_alone(self, number: int) -> bool:
        return sys.getrefcount(self.things[number]) <= _ALONE

    def _forget(self, number: int) -> None:
        if number in self.things:
            del self._numbers[id(self.things[number])]
            self._contents.pop(number, None)
            self._owned.discard(number)
            del self.things[number]

    # --- receiving ----------------------------------------------------------------------------------------------------

    def decode(self, data: Any, depth: int = 0) -> Any:
        """The value that `encode` was given. Raises ValueError, TypeError and the like for what is none."""
        if type(data) in plain.ATOMS:
            return data
        if depth > 2 * plain.MAX_DEPTH:
            raise ValueError("a value nested too deep")
        ((kind, content),) = data.items()
        if kind == "same":
            return self.things[content]
        if kind in plain.FROM_PARTS:
            return plain.FROM_PARTS[kind](*self._decoded(content, depth))
        if kind in plain.MUTABLE:
            number, parts, *spare = content
            made: Any = deque(maxlen=spare[0]) if kind == "deque" else plain.MUTABLE[kind]()
            self._take(number, made)
            if kind == "defaultdict":
                made.default_factory = self.decode(spare[0], depth + 1)
                if made.default_factory is not None and not callable(made.default_factory):
                    raise ValueError("no default factory")
            self._fill(number, parts, depth)
            return made
        if kind == "made":
            module, name, arguments = content
            return self._made(module, name, arguments, depth)
        if kind == "named":
            return self._of_name(content)
        if kind == "standing":
            self._take(content[0], mirrors.STANDING[content[1]])
            return mirrors.STANDING[content[1]]
        others: dict[str, Any] = {"object": self._mirror, "class": self._class, "error": self._error}
        return others[kind](*content, depth=depth)

    def _decoded(self, items: Any, depth: int) -> list[Any]:
        if type(items) is not list:
            raise ValueError("no list of items")
        return [item if type(item) in plain.ATOMS else self.decode(item, depth + 1) for item in items]

    def _take(self, number: Any, value: Any) -> None:
        """Under a number of the other side's that is free."""
        if type(number) is not int or number * self._sign >= 0 or number in self.things:
            raise ValueError("no new number")
        self._add(value, number)

    def _fill(self, number: int, parts: Any, depth: int = 0) -> None:
        value = self.things[number]
        kind = plain.kind_of(value)
        plain.fill(kind, value, self._decoded(parts, depth))
        self._contents[number] = plain.parts(kind, value)

    def _made(self, module: str, name: str, arguments: Any, depth: int) -> Any:
        if (module, name) not in plain.MADE:
            raise ValueError("no value of the library")
        parts = self._decoded(arguments, depth)
        if not all(type(part) in plain.ATOMS or type(part).__module__ == "datetime" for part in parts):
            raise ValueError("no arguments of a value of the library")
        return getattr(importlib.import_module(module), name)(*parts)

    def _of_name(self, name: Any) -> Any:
        module, _, path = name.partition(":")
        if self._sign > 0:
            found: Any = importlib.import_module(module)
        elif module.partition(".")[0] not in sys.stdlib_module_names:
            raise ValueError("no name of the library")
        else:
            found = sys.modules.get(module)
            if found is None:  # an error of a module that the test does not know either
                return Exception
        for part in path.split("."):
            found = getattr(found, part)
        if self._sign < 0 and name not in plain.SAFE and not plain.is_error(found):
            raise ValueError("no name that a program may give")
        return found

    def _mirror(self, number: Any, described: Any, *held: Any, depth: int) -> Any:
        kind: Any = self.decode(described, depth + 1)
        if type(kind) is not mirrors.Mirror:
            raise ValueError("no class of the other side's")
        return self._mirror_of(number, kind, held, depth)

    def _mirror_of(self, number: Any, kind: Any, held: tuple[Any, ...], depth: int) -> Any:
        base: Any = next((each for each in kind.__mro__ if each in plain.HOLDERS), None)
        if base is None or base in plain.MUTABLE.values():
            mirror = (base or object).__new__(kind)
            self._take(number, mirror)
            if base is not None:
                self._fill(number, held[0], depth)
            return mirror
        value = held[0]
        if base in plain.OF_PARTS:
            value = plain.FROM_PARTS[base.__name__](*self._decoded(value, depth))
        if type(value) is not base:
            raise ValueError(f"no {base.__name__} that it holds")
        mirror = base.__new__(kind, value)
        self._take(number, mirror)
        return mirror

    def _class(self, number: Any, name: Any, bases: Any, methods: Any, depth: int) -> Any:
        kind = mirrors.mirrored(name, self._decoded(bases, depth), methods)
        self._take(number, kind)
        return kind

    def _error(self, number: Any, described: Any, arguments: Any, cause: Any, depth: int) -> BaseException:
        kind = self.decode(described, depth + 1)
        if not plain.is_error(kind):
            raise ValueError("no class of errors")
        parts = self._decoded(arguments, depth)
        error: BaseException = kind.__new__(kind, *parts)
        if type(kind) is not mirrors.Mirror:
            try:
                error = kind(*parts)
            except TypeError:  # its constructor takes others
                error.args = tuple(parts)
        self._take(number, error)
        error.__cause__ = self.decode(cause, depth + 1)
        return error

    def change(self, number: int, parts: Any) -> None:
        """Contents of a shared value that the other side changed. Raises as `decode`."""
        if number not in self._contents:
            raise ValueError("no shared value")
        self._fill(number, parts)

    def forget(self, numbers: Any) -> None:
        """What nobody holds on the other side any more."""
        for number in numbers:
            self._forget(number)

    def is_own(self, value: Any) -> bool:
        """Whether it is an object of this side's that the other one knows."""
        return self._numbers.get(id(value)) in self._owned


def _methods(kind: type) -> list[str]:
    """What its mirror must ask for: special methods, and those that a builtin type would answer in its stead.

    With a `!` before those that are switched off by None.
    """
    own = vars(kind)
    names = [name for name in own if name in mirrors.METHODS]
    held = next((each for each in kind.__mro__[1:] if each in plain.HOLDERS or plain.is_error(each)), None)
    if held is not None:
        names += [name for name in own if not name.startswith("__") and hasattr(held, name)]
    return [name if own.get(name, 0) is not None else f"!{name}" for name in names]
