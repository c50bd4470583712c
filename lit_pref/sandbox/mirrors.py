"""Mirrors of the other process's objects: real classes and objects here, each of whose methods asks over there.

A class of the other side becomes a class here, with its bases and the special methods that it defines, so that Python
itself does the rest: `isinstance`, `except`, which of two operands is asked first, what cannot be hashed. Its objects
hold nothing, but for those of subclasses of builtin types, which hold that value.

What a program's objects could cheat by: in `f(1) == 5` or `abs(f(1) - 3.0) < 1e-6` their methods would see what is
expected, or simply agree. So an operator whose other operand is not of the program's too needs a licence: the
reference needed it at the same place of the test. Without one the object has no such method, or its builtin type's.
An object that holds a value needs one for each method that the value has too: it could be one thing to `len` and `iter`
and another to `==`. (Where it holds none, its own methods are all that there is, as in plain Python.)
"""

import types
from collections.abc import Callable
from typing import Any, NoReturn

from lit_pref.sandbox import plain

_ARITHMETIC = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or"
OPERATORS = {f"__{name}__" for name in ["eq", "ne", "lt", "le", "gt", "ge", "contains"]}
OPERATORS |= {f"__{prefix}{name}__" for name in _ARITHMETIC.split() for prefix in ("", "r", "i")}
_OTHERS = "call len iter next bool str repr format bytes hash int float complex index neg pos abs invert round trunc"
_OTHERS += " floor ceil reversed length_hint getitem setitem delitem missing enter exit fspath await aiter anext aenter"
_OTHERS += " aexit dir"

_STANDING: list[Any] = [types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType]
_STANDING += [types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType]


class Asker:
    """What asks the other process; replaced by the one connection that a process has."""

    over = True

    def ask(self, action: str, /, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError

    def licensed(self, name: str, others: tuple[Any, ...]) -> bool:
        """Whether an operator of a mirror may be told of these values."""
        raise NotImplementedError


asker = Asker()


def use(connection: Asker) -> None:
    """From now on mirrors ask this one."""
    global asker
    asker = connection


class Mirror(type):
    """The class of classes of the other side."""

    def __new__(cls, *_: Any, **__: Any) -> "Mirror":
        raise TypeError("a class here cannot inherit from one of the other process")

    def __call__(cls, /, *arguments: Any, **named: Any) -> Any:
        return asker.ask("call", cls, *arguments, **named)

    def __getattr__(cls, name: str) -> Any:
        return asker.ask("getattr", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        asker.ask("setattr", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        asker.ask("delattr", cls, name)

    def __bool__(cls) -> bool:
        return True

    def __repr__(cls) -> str:
        return f"<class '{cls.__module__}.{cls.__qualname__}'>"

    __annotations__ = property(lambda cls: asker.ask("getattr", cls, "__annotations__"))
    __doc__ = property(lambda cls: asker.ask("getattr", cls, "__doc__"))


def is_mirror(value: Any) -> bool:
    """An object or a class of the other side's."""
    return type(value) is Mirror or type(type(value)) is Mirror


_ABSENT = object()


def _held(mirror: Any, name: str) -> Any:
    """What the builtin type whose value it holds has under this name."""
    kinds = type(mirror).__mro__ if not isinstance(mirror, type) else ()
    return next((vars(kind)[name] for kind in kinds if kind in plain.HOLDERS and name in vars(kind)), _ABSENT)


def _decides(mirror: Any, name: str, arguments: tuple[Any, ...]) -> bool:
    """Whether its own method is asked: where it holds a value that would answer, with a licence only."""
    return _held(mirror, name) is _ABSENT or asker.licensed(name, arguments)


def _method(name: str) -> Callable[..., Any]:
    def ask(self: Any, *arguments: Any) -> Any:
        if not _decides(self, name, arguments):
            own = _held(self, name)
            if own is None:
                raise TypeError(f"unhashable type: {type(self).__name__!r}")
            return own(self, *arguments)
        return asker.ask("special", self, name, *arguments)

    def ask_if_licensed(self: Any, *others: Any) -> Any:
        if all(map(is_mirror, others)) or asker.licensed(name, others):
            return asker.ask("special", self, name, *others)
        for kind in type(self).__mro__:
            if type(kind) is not Mirror and name in vars(kind):
                return vars(kind)[name](self, *others)
        if name == "__contains__":
            raise TypeError(f"what is in {type(self).__name__!r} is not left to it to say")
        return NotImplemented

    def show(self: Any, *arguments: Any) -> Any:
        if asker.over:
            return f"<the program's {type(self).__name__}>"
        if not _decides(self, name, arguments):
            return _held(self, name)(self, *arguments)
        return asker.ask("special", self, name, *arguments)

    made = ask_if_licensed if name in OPERATORS else show if name in ("__str__", "__repr__", "__format__") else ask
    made.__name__ = made.__qualname__ = name
    return made


METHODS = {name: _method(name) for name in (*sorted(OPERATORS), *(f"__{each}__" for each in _OTHERS.split()))}


def _leave(_: Any, kind: Any, error: Any, __: Any) -> Any:
    return asker.ask("special", _, "__exit__", kind, error, None)  # a traceback would lead to the test's variables


def _call(self: Any, /, *arguments: Any, **named: Any) -> Any:
    return asker.ask("call", self, *arguments, **named)


METHODS |= {"__exit__": _leave, "__call__": _call}
for _name in ("__iter__", "__len__", "__getitem__", "__contains__"):  # of a class: Enum's
    setattr(Mirror, _name, METHODS[_name])


def _attribute(name: str) -> property:
    def read(self: Any) -> Any:
        if _decides(self, name, ()):
            return asker.ask("getattr", self, name)
        return _held(self, name).__get__(self, type(self))

    return property(read, lambda self, value: asker.ask("setattr", self, name, value))


class _Copy:
    """`__copy__`, which iterators have not: `itertools.tee` would call it."""

    def __get__(self, target: Any, kind: type) -> Callable[..., Any]:
        if target is not None and hasattr(kind, "__next__"):
            raise AttributeError("__copy__")
        return (lambda each: asker.ask("copy", each)) if target is None else lambda: asker.ask("copy", target)


_ROOT = {
    "__getattr__": lambda self, name: asker.ask("getattr", self, name),
    "__setattr__": lambda self, name, value: asker.ask("setattr", self, name, value),
    "__delattr__": lambda self, name: asker.ask("delattr", self, name),
    "__copy__": _Copy(),
    "__deepcopy__": lambda self, _: asker.ask("deepcopy", self),
    "__dict__": _attribute("__dict__"),
    "__doc__": _attribute("__doc__"),
    "__module__": "__main__",
    **{name: METHODS[name] for name in ("__repr__", "__str__", "__format__", "__dir__")},
}
Theirs: Any = type.__new__(Mirror, "Theirs", (), _ROOT)


def _awaited(coroutine: Any, _: Any = None) -> NoReturn:
    raise StopIteration(asker.ask("await", coroutine))


class _Await:
    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __iter__(self) -> "_Await":
        return self

    def __next__(self) -> NoReturn:
        _awaited(self._coroutine)


def mirrored(name: Any, bases: list[Any], methods: Any, own: dict[str, Any] | None = None) -> type:
    """A class with these bases and methods, and some of ours. Raises TypeError or ValueError for what makes none."""
    namespace: dict[str, Any] = {"__module__": "__main__", "__doc__": _ROOT["__doc__"]} | (own or {})
    for method in methods:
        if method.startswith("!"):
            if method[1:] in METHODS:
                namespace[method[1:]] = None
        elif method in METHODS:
            namespace[method] = METHODS[method]
        elif not method.startswith("__"):
            namespace[method] = _attribute(method)
    if "__eq__" in namespace and "__hash__" not in namespace:
        namespace["__hash__"] = None  # as Python has it
    kinds = tuple(bases)
    if not any(issubclass(base, Theirs) for base in kinds):
        kinds += (Theirs,)
    return type.__new__(Mirror, name, kinds, namespace)


def _standing(kind: type) -> type:
    """The class of mirrors of functions, say, which tell `isinstance` that they are; it gains them no method."""
    own: dict[str, Any] = {"__class__": property(lambda _: kind)}
    if kind is types.CoroutineType:  # run over there, to its end
        own |= {"send": _awaited, "__await__": lambda self: _Await(self), "close": lambda _: None}
    return mirrored(kind.__name__, [], [name for name in vars(kind) if name in METHODS], own)


STANDING = {kind.__name__: _standing(kind) for kind in _STANDING}  # made once, before any fork
