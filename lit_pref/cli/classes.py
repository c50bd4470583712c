"""Types and classes of options in words: what a field takes, which classes there are, what is wrong with a name."""

import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lit_pref.cli.old_names import new_class

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_CALLABLES = (Callable, types.FunctionType)
_PLAIN = (int, float, str, bool, bytes, dict, list, tuple, set, object, types.NoneType, Path)


def in_words(hint: Any) -> str:
    """A type in words: `int or null`, `one of 'a', 'b'`, `Task or null (CodeTask, HumanEval, ...)`."""
    bases = list(bases_of(hint))
    return f"{_words(hint)} ({listed(bases)})" if bases else _words(hint)


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, arguments)))
    if origin in _CALLABLES:
        return _words(arguments[-1])
    if hint in (None, types.NoneType):
        return "null"
    if arguments and origin is not dict:
        return f"{'tuple' if origin is tuple else 'list'} of {', '.join(dict.fromkeys(map(_words, arguments)))}"
    if isinstance(hint, TypeVar) or hint in (Any, object):
        return "another value"
    return "keys and values" if dict in (origin, hint) else str(getattr(hint, "__name__", hint))


def bases_of(hint: Any) -> Iterator[type]:
    """The classes of which a field takes instances, or what makes them."""
    arguments = get_args(hint)
    if inspect.isclass(hint) and not arguments:
        if hint not in _PLAIN and hint.__module__ not in ("builtins", "torch", "datetime", "collections.abc"):
            yield hint
    elif get_origin(hint) is not Literal:
        for each in arguments[-1:] if get_origin(hint) in _CALLABLES else arguments:
            yield from bases_of(each)


def _concrete(bases: Sequence[type]) -> list[type]:
    """All that are imported of these kinds and can be made."""
    found = list(bases)
    for each in found:  # which grows on the way
        below: list[type] = each.__subclasses__()
        found += [kind for kind in below if kind not in found]
    public = [each for each in found if not each.__name__.startswith("_") and "<locals>" not in each.__qualname__]
    return [each for each in public if not inspect.isabstract(each)]


def own_classes(bases: Sequence[type]) -> list[type]:
    """What to offer: the kit's own classes, else all."""
    found = sorted(_concrete(bases), key=lambda each: each.__name__)
    return [each for each in found if each.__module__.startswith("lit_pref.")] or found


def listed(bases: Sequence[type]) -> str:
    return few([each.__name__ for each in own_classes(bases)], 12)


def few(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def wrong_class(bases: Sequence[type], hint: Any, given: str, message: str) -> str | None:
    """What is wrong with the name of a class; None where the name is right, or something else was given."""
    stem = given.rpartition(".")[2]
    if several := re.search(r"Give the full class path to avoid ambiguity: (.*?)\.$", message, re.MULTILINE):
        return f"{stem!r} names several classes: expected one of {several[1]}"
    scalars = any(each in _PLAIN[:4] or get_origin(each) is Literal for each in get_args(hint))
    if not _NAME.fullmatch(given) or given == "None" or (scalars and not (given[0].isupper() or "." in given)):
        return None
    if new := new_class(given):
        return f"{stem} is now {new}"
    known = _concrete(bases)
    if said := _import_mistake(given.rpartition(".")[0]):
        return said
    if found := _called(given):
        if found not in known:
            return f"{stem} is no {bases[0].__name__}: expected {listed(bases)}"
        return f"expected arguments of {stem} as keys and values" if "given class_path" in message else None
    names = [each.__name__ for each in known]
    if given in names:
        return None
    near = get_close_matches(stem, names, n=1)
    return f"there is no class {given!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are: {listed(bases)}")


def _import_mistake(module: str) -> str:
    """Why the module of a class cannot be imported; empty where it can, or where nothing is said of one."""
    try:
        import_module(module or __name__)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's may raise
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            near = get_close_matches(module, [file.stem for file in Path().glob("*.py")], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "expected one of the working folder or an installed one"
            return f"there is no module {error.name!r}; {hint}"
        if isinstance(error, SyntaxError):
            return f"{error.filename}:{error.lineno}: {error.msg}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd())]
        last = (own or frames)[-1]
        return f"{last.filename}:{last.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _called(name: str) -> object:
    """What is called so in an imported module or, without one, among the kit's public names; None where nothing is."""
    module, _, stem = name.rpartition(".")
    paths = [module] if module else [path for path in sys.modules if path.startswith("lit_pref.")]
    public = (vars(sys.modules[path]) for path in paths if module or stem in getattr(sys.modules[path], "__all__", ()))
    return next((names[stem] for names in public if stem in names), None)
