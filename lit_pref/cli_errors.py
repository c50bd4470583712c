"""Mistakes in a configuration, said in a line or two: the field, what stood there, what was expected, what was meant.

jsonargparse reports every branch of a type that did not fit, nested; here the branch that the user meant is kept.
"""

import inspect
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import ModuleType

_NOISE = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|Expected a path but|"
    r"Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with|a dict without|^\s*$"
)
_KEY = re.compile(r'Parser key "([\w.\-]+)":')
_TYPE = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")
_BRANCH = re.compile(rf"Expected an? {_TYPE.pattern}")
_LITERAL = re.compile(r"\ban? typing\.Literal\[([^\]]*)\]")
_OPTION = re.compile(
    r"unrecognized arguments: --([\w.\-]+)|(?:Option|Key|Group key) '([\w.\-]+)' is not (?:accepted|expected)|"
    r"does not accept option '([\w.\-]+)'"
)
_GIVEN = re.compile(r"Given value: (.*)")


_OF_TRAINING = ("model", "data", "trainer", "seed_everything", "runs_folder", "run_name", "project", "ckpt_path")


def readable(message: str, modules: Iterable[ModuleType], options: Sequence[str] = _OF_TRAINING) -> str:
    """A parser's or constructor's message without its repetitions.

    modules: whose public classes and their parameters are what a misspelt name may have meant.
    options: of the command itself.
    """
    classes = [getattr(module, name) for module in modules for name in module.__all__]
    classes = [item for item in classes if inspect.isclass(item) and not inspect.isabstract(item)]
    fields: list[str] = []
    found: list[str] = []
    kinds: list[str] = []
    for line in message.splitlines():
        fields += _KEY.findall(line)
        text = _KEY.sub("", line).strip().removeprefix("- ").strip()
        if _NOISE.search(text):
            continue
        if branch := _BRANCH.fullmatch(text):
            kinds.append(branch[1])
        else:
            found.append(_said(text, classes, options))
    given = _GIVEN.search(message)
    # None of a union's plain types; that it names no class either is news only where it looks like one.
    if kinds and given and not (found and given[1][0].isupper()):
        found = [f"expected {' or '.join(dict.fromkeys(kinds))}, got {given[1]}"]
    if not found:
        return message
    text = "; ".join(dict.fromkeys(found))  # branches of one union repeat each other's complaint
    return ".".join(fields) + ("." if re.match(r"[\w.]+: ", text) else ": ") + text if fields else text


def _said(text: str, classes: list[type], options: Sequence[str]) -> str:
    text = _LITERAL.sub(r"one of \1", text.replace('in "<unicode string>", ', "at "))
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"there is no class {match[1]!r}{_meant(match[1], sorted(item.__name__ for item in classes))}"
    if match := re.search(r"expects a function or a callable class: (.+)\. Got value: ", text):
        return match[1]
    if match := re.search(r"Expected an instantiatable class, but (?:[\w.]+\.)?(\w+) is abstract", text):
        return f"name the {match[1]} before its arguments"
    if match := _OPTION.search(text):
        option = match[match.lastindex or 0]
        return f"there is no option {option!r}{_meant_option(option, classes, options)}"
    if match := re.search(r"Unexpected config: (.*)", text):
        return f"expected keys and values such as seed_everything: 1, got {match[1]}"
    if match := re.search(r"Expected (?:an? )?(.+?)\. Got value: (.*)", text):
        return f"expected {_TYPE.sub(lambda kind: kind[1], match[1])}, got {match[2]}"
    return _TYPE.sub(lambda kind: kind[1], text)


def _meant(name: str, candidates: list[str]) -> str:
    near = get_close_matches(name, candidates, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(candidates)}"


def _meant_option(name: str, classes: list[type], options: Sequence[str]) -> str:
    arguments = sorted({parameter for item in classes for parameter in inspect.signature(item).parameters})
    first, *_, last = name.split(".") if "." in name else (name, name)
    near = get_close_matches(first, options, n=1) if first not in options else []
    near = near or get_close_matches(last, [*options, *arguments], n=1)
    return f"; did you mean {near[0]!r}?" if near else "; see --help"
