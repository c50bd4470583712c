"""What a program may do with the objects of a test that it was given: functions, iterators, objects of its classes.

It may call what can be called, use the operators that their classes define, and see public data and methods of the
test's own classes. Nothing that leads from there to the test's code, its variables or the values that it expects: no
name that starts with an underscore, no attributes of functions, generators, frames or anything else of Python's own
but methods. A class keeps its methods: what the test calls later is what the test defined.
"""

import types
from collections.abc import Callable
from typing import Any

from lit_pref.sandbox import mirrors

_OF_FUNCTIONS = ("__name__", "__qualname__", "__module__", "__doc__")  # what functools.wraps copies
_METHODS = (types.MethodDescriptorType, types.FunctionType, classmethod, staticmethod, types.ClassMethodDescriptorType)


def actions(is_own: Callable[[Any], bool]) -> dict[str, Callable[..., Any]]:
    """By the names that a program asks for them. is_own: whether an object is one that it was given."""

    def lent(target: Any) -> Any:
        if not is_own(target):
            raise TypeError("not an object of the test's")
        return target

    def special(target: Any, name: str, /, *arguments: Any) -> Any:
        if name not in mirrors.METHODS:
            raise AttributeError(name)
        return getattr(type(lent(target)), name)(target, *arguments)

    def read(target: Any, name: str) -> Any:
        _check_readable(lent(target), name)
        return getattr(target, name)

    def write(target: Any, name: str, value: Any) -> None:
        _check_writable(lent(target), name)
        setattr(target, name, value)

    def remove(target: Any, name: str) -> None:
        _check_writable(lent(target), name)
        delattr(target, name)

    return {
        "call": lambda target, /, *arguments, **named: lent(target)(*arguments, **named),
        "special": special,
        "getattr": read,
        "setattr": write,
        "delattr": remove,
    }


def _is_of_test(kind: type) -> bool:
    """A class that test code defines."""
    return kind.__dict__.get("__module__") == "__main__" and type(kind) is not mirrors.Mirror


def _class_of(target: Any) -> type:
    return target if isinstance(target, type) else type(target)


def _defined(target: Any, name: str) -> tuple[type, Any] | None:
    """The class that defines an attribute, and the attribute in its dict."""
    return next(((kind, vars(kind)[name]) for kind in _class_of(target).__mro__ if name in vars(kind)), None)


def _check_readable(target: Any, name: str) -> None:
    if type(name) is str and name in _OF_FUNCTIONS and isinstance(target, types.FunctionType | type):
        return
    if type(name) is str and not name.startswith("_"):
        defined = _defined(target, name)
        if defined is not None and (_is_of_test(defined[0]) or isinstance(defined[1], _METHODS)):
            return
        own = isinstance(target, types.FunctionType) or _is_of_test(_class_of(target))
        if defined is None and own and (hasattr(target, name) or hasattr(_class_of(target), "__getattr__")):
            return
    raise AttributeError(f"{_class_of(target).__name__!r} object has no attribute {name!r}", name=str(name), obj=None)


def _check_writable(target: Any, name: str) -> None:
    own = isinstance(target, types.FunctionType) or (not isinstance(target, type) and _is_of_test(type(target)))
    if own and type(name) is str and not name.startswith("_"):
        defined = _defined(target, name)
        if defined is None or not (callable(defined[1]) or isinstance(defined[1], classmethod | staticmethod)):
            return
    raise AttributeError(f"{_class_of(target).__name__!r} object does not let attribute {name!r} be set")
