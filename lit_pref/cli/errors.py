"""Mistakes in a configuration, said in a line or two: the field, what was expected, what stood there, what was meant.

jsonargparse asks a parser of its own for the arguments of each class, and reports every branch of a type that did not
fit, nested. Here the innermost parser, which knows the field and its type, says what is wrong; the parsers around it
put their field's name before that and drop the rest.
"""

import inspect
import re
import types
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import _ActionConfigLoad

from lit_pref.cli.classes import bases_of, few, in_words, listed, own_classes, wrong_class
from lit_pref.cli.old_names import KEYS
from lit_pref.errors import UserError

_INNER = re.compile("\x02(.*?)\x1f(.*?)\x03")  # what the parser of a class has said of a field
_FIELD = re.compile(r'Parser key "([\w.\-]+)"')
_OPTION = re.compile(
    r"(?:[Oo]ption|Key|Group key) '([\w.\-+]+)' is not|does not accept option '([\w.\-+]+)'|"
    r"unrecognized arguments: --([^\s=]*)"
)
_GIVEN = (
    re.compile(r"^ *Given value: (.*)", re.MULTILINE),
    re.compile(r"Got value: (.*)"),
    re.compile(r"Expected a path but (.*) either not accessible"),
    re.compile(r"Unable to load config ['\"](.*)['\"]"),
    re.compile(r"(?:import path string: |Import path |given class_path ')([\w.]+)"),
)
_NESTED = re.compile(r"NestedArg\(key='([\w.+]+)', val=(.*)\)")
_CLASS_PATH = re.compile(r"class_path['\"]?[=:] ?['\"]([^'\"]+)")
_TYPE = re.compile(r"<class\s+'(?:[\w.]+\.)?(\w+)'>")
_OF_UNION = ("Does not validate against any", "Problem with given class_path")
_BRANCHES = re.compile(
    r"^ *- (?!Expected a|Does not validate|Problem with|Not a valid|a class path|a dict)(.*)", re.MULTILINE
)
# Keys of a configuration that tell whose it is.
_WHOSE = {
    **dict.fromkeys(("model", "data", "trainer", "seed_everything"), "fit"),
    **dict.fromkeys(("k", "samples_file"), "evaluate"),
    **dict.fromkeys(("evaluations", "calibration_bins", "reward_model"), "evaluate --recipe reward"),
    **dict.fromkeys(("strategy", "write_tests", "min_kill_rate"), "synthesize"),
    **dict.fromkeys(("construction", "describer", "snippets", "strong", "weak"), "synthesize --recipe code_pairs"),
    **dict.fromkeys(("task", "recipe", "sampling", "problems"), "evaluate or lit-pref synthesize"),
}


class PlainParser(ArgumentParser):
    """Says a mistake in one paragraph and raises it as a UserError.

    example: a whole command, shown where something is missing.
    """

    example = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        field, said = _understood(self, str(message))
        if _is_inner(self):
            raise UserError(f"\x02{field}\x1f{said}\x03")
        raise UserError(f"{field}: {said}" if field else said)

    def format_help(self, *more: Any, **settings: Any) -> str:
        if self.example:
            self.usage = f"{self.example} [options]"  # in place of fifty lines of all of them
        shown: str = super().format_help(*more, **settings)
        return _TYPE.sub(r"\1", shown)

    def _check_value_key(self, action: Any, value: Any, key: str, *more: Any, **settings: Any) -> Any:
        # Of a number in the place of a group of keys jsonargparse says nothing, and takes the group's defaults.
        if isinstance(action, _ActionConfigLoad) and isinstance(value, int | float | list):
            value = str(value)
        return super()._check_value_key(action, value, key, *more, **settings)

    def parse_path(self, cfg_path: Any, *more: Any, **settings: Any) -> Namespace:
        try:
            parsed: Namespace = super().parse_path(cfg_path, *more, **settings)
        except UserError as error:
            raise UserError(f"{cfg_path}: {error}") from error
        return parsed


BY_CONSTRUCTORS = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, ImportError, RuntimeError)
"""What a class, ours or another library's, raises on arguments of a wrong kind or size."""


def of_constructor(error: Exception) -> UserError:
    """What a class of the configuration said of its arguments, with the class's name before it."""
    cause: BaseException = error
    while str(cause).startswith(_OF_UNION) and cause.__cause__:
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    said, made = str(cause), ""
    if said.startswith(("Expected a", "Not a valid")) and (branches := _BRANCHES.findall(str(error))):
        said = branches[0]  # a later branch of the union than the one that is named as the cause
    elif cause.__traceback__:
        frames = inspect.getinnerframes(cause.__traceback__)
        owners = [f.frame.f_locals["self"] for f in frames if f.function in ("__init__", "__post_init__")]
        made = f"{type(owners[-1]).__name__}: " if owners else ""
        if isinstance(cause, TypeError | AttributeError | ArithmeticError | LookupError):  # in Python's words
            null = _wrong_null(owners[-1], frames) if owners else ""
            said = null or f"cannot be made of these arguments: {said}"
    return UserError(made + re.sub(r"\s+", " ", said).strip())


def _wrong_null(made: object, frames: Sequence[inspect.FrameInfo]) -> str:
    """Which argument of a class is null and may not be: jsonargparse lets null be any argument."""
    given = [f.frame.f_locals for f in frames if f.frame.f_locals.get("self") is made]
    for name, hint in get_type_hints(type(made).__init__).items():
        is_null = any(each.get(name, 0) is None for each in [*given, getattr(made, "__dict__", {})])
        if is_null and hint is not Any and types.NoneType not in (hint, *get_args(hint)):
            return f"{name}: expected {in_words(hint)}, got null"
    return ""


# --- what a parser says -----------------------------------------------------------------------------------------------


class _Mistake(NamedTuple):
    field: str
    said: str


def _understood(parser: ArgumentParser, message: str) -> _Mistake:
    found = _FIELD.search(message)
    field = found[1].removeprefix(f"{_subcommand(parser)}.") if found else ""
    if inner := _INNER.findall(message):
        name, said = max(inner, key=lambda mistake: len(mistake[0]))  # the branch of a union that fits longest
        return _Mistake(".".join(filter(None, (field, name))), said)
    if missing := re.search(r"the following arguments are required: (.*)", message):
        return _Mistake("", _what_is_missing(parser, missing[1].split(", ")))
    if unknown := _OPTION.search(message):
        return _unknown_option(parser, field, unknown[unknown.lastindex or 0])
    if unknown := re.search(r"unrecognized arguments: (\S*)", message):
        return _Mistake("", f"{unknown[1]!r} belongs to no option: expected --option value")
    if named := re.match(r"(?:argument )?(?:-\w/)?--([\w.\-]+): (.*)", message):
        if wrong := re.search("import path string: (.*)", named[2]):  # after --model.help
            bases = list(bases_of(_types(parser).get(named[1].removesuffix(".help"))))
            return _Mistake(named[1], wrong_class(bases, None, wrong[1], "") or named[2])
        return _Mistake(named[1], named[2].replace("expected one argument", "expected a value, got nothing"))
    if field:
        return _wrong_value(parser, field, message)
    return _Mistake("", _one_line(message))


def _is_inner(parser: ArgumentParser) -> bool:
    """Whether it is the parser of a class's arguments, and not of a command."""
    return bool(getattr(parser, "_inner_parser", False))


def _subcommand(parser: ArgumentParser) -> str:
    return str(parser.prog).split()[-1] if len(str(parser.prog).split()) > 1 else ""


def _types(parser: ArgumentParser) -> dict[str, Any]:
    """The options of a command or class, and their types."""
    kept = {action.dest: getattr(action, "_typehint", action.type) for action in parser._actions}
    for action in parser._actions:
        for command in getattr(action, "_name_parser_map", {}).values():
            kept |= _types(command)
    return {name: kind for name, kind in kept.items() if not name.startswith("_") and not name.endswith("help")}


def _what_is_missing(parser: ArgumentParser, names: Sequence[str]) -> str:
    names = [name.rpartition(".")[2] for name in names]
    if _is_inner(parser):
        hint = _types(parser).get(names[0])
        return f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} missing: expected {in_words(hint)}"
    given = " and ".join(f"--{name}" for name in names)
    example = f", as in: {parser.example}" if isinstance(parser, PlainParser) and parser.example else ""
    return f"{given} {'are' if len(names) > 1 else 'is'} missing{example}"


def _unknown_option(parser: ArgumentParser, field: str, name: str) -> _Mistake:
    parts = [*filter(None, field.split(".")), *name.split(".")]
    known, inner = _types(parser), _is_inner(parser)
    for place, part in enumerate(parts):
        # A whole option only where the new one is an option of this very command.
        if part in KEYS and (place or inner or KEYS[part].replace(",", " ").split()[1] in known):
            return _Mistake(".".join(parts[:place]), f"{part} is {KEYS[part]}")
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    firsts = {each.partition(".")[0] for each in known}
    if not inner and first not in firsts and first in _WHOSE:
        return _Mistake(field, f"there is no option {first!r} here: it is one of lit-pref {_WHOSE[first]}")
    candidates = [*known, *(["class_path", "init_args"] if inner else [])]
    near = get_close_matches(name, candidates, n=1)
    if not near and "." in name:
        near = get_close_matches(first, firsts - {first}, n=1)
    if not near:
        lasts = {each.rpartition(".")[2]: each for each in [*_of_classes(known), *candidates]}
        near = [lasts[each] for each in get_close_matches(last, lasts, n=1)]
    return _Mistake(field, f"there is no option {name!r}; " + (f"did you mean {near[0]!r}?" if near else "see --help"))


def _of_classes(known: dict[str, Any]) -> list[str]:
    """The arguments of the kit's classes that options take, as `model.policy`."""
    return [
        f"{option}.{argument}"
        for option, hint in known.items()
        for each in own_classes(list(bases_of(hint)))
        for argument in inspect.signature(each).parameters
    ]


def _wrong_value(parser: ArgumentParser, field: str, message: str) -> _Mistake:
    given = next((found[-1] for found in (pattern.findall(message) for pattern in _GIVEN) if found), "")
    hint = _types(parser).get(field)
    bases = list(bases_of(hint))
    if bases and "is abstract" in message:
        base = " or ".join(each.__name__ for each in bases)
        return _Mistake(field, f"name the {base} before its arguments: {listed(bases)}")
    if nested := _NESTED.fullmatch(given):
        field, given = f"{field}.{nested[1].removesuffix('.class_path')}", nested[2]
    given = given.strip().strip("'\"")
    named = re.findall(r"import path string: ([\w.]+)", message) or _CLASS_PATH.findall(given) or [given]
    if bases and (said := wrong_class(bases, hint, named[-1], message)):
        return _Mistake(field, said)
    expected = in_words(hint)
    if hint is None:
        keys = [name.removeprefix(f"{field}.") for name in _types(parser) if name.startswith(f"{field}.")]
        expected = f"keys and values ({few(keys, 6)})" if keys else "another value"
    return _Mistake(field, f"expected {expected}, got {_shown(given)}")


def _shown(given: str) -> str:
    return {"": "nothing", "None": "null"}.get(given, given if len(given) < 200 else given[:200] + " ...")


def _one_line(message: str) -> str:
    return "; ".join(line.strip().removeprefix("- ") for line in message.splitlines() if line.strip())
