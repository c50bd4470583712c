"""Mistakes in a configuration, said in a line or two: the field, what stood there, what was expected, what was meant.

jsonargparse reports every branch of a type that did not fit, nested; here the branch that the user meant is kept.
"""

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType

_NOISE = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|Expected a path but|"
    r"Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with|a dict without|^\s*$"
)
_KEY = re.compile(r'Parser key "([\w.\-]+)":')
_TYPE = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")


def readable(message: str, modules: Iterable[ModuleType]) -> str:
    """A parser's or constructor's message without its repetitions.

    modules: whose public classes and their parameters are what a misspelt name may have meant.
    """
    classes = {name for module in modules for name in module.__all__}
    fields, found = [], []
    for line in message.splitlines():
        fields += _KEY.findall(line)
        text = _KEY.sub("", line).strip().removeprefix("- ").strip()
        if text and not _NOISE.search(text):
            found.append(_said(text, classes, _parameters(modules)))
    if not found:
        return message
    # Branches of one union repeat each other's complaint.
    return ": ".join([".".join(fields), "; ".join(dict.fromkeys(found))]) if fields else "; ".join(dict.fromkeys(found))


def _said(text: str, classes: set[str], parameters: set[str]) -> str:
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"there is no class {match[1]!r}{_meant(match[1], classes)}"
    if match := re.search(r"unrecognized arguments: --([\w.\-]+)", text):
        return f"there is no option {match[1]!r}{_meant(match[1].split('.')[0], parameters)}"
    if match := re.search(r"(?:Option|Key|Group key) '([\w.\-]+)' is not (?:accepted|expected)", text):
        return f"there is no option {match[1]!r}{_meant(match[1].split('.')[-1], parameters)}"
    if match := re.search(r"Expected an? (.+?)\. Got value: (.*)", text):
        return f"expected {_TYPE.sub(lambda kind: kind[1], match[1])}, got {match[2]}"
    return _TYPE.sub(lambda kind: kind[1], text)


def _meant(name: str, candidates: set[str]) -> str:
    near = get_close_matches(name, sorted(candidates), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(candidates))}"


def _parameters(modules: Iterable[ModuleType]) -> set[str]:
    classes = [getattr(module, name) for module in modules for name in module.__all__]
    return {
        parameter for item in classes if inspect.isclass(item) for parameter in inspect.signature(item).parameters
    } | {"model", "data", "trainer", "seed_everything", "runs_folder", "run_name", "project", "ckpt_path"}
