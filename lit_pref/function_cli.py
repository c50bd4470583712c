"""A function's arguments as a command's options: YAML files, classes by their bare names, mistakes in a sentence."""

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

import torch
from jsonargparse import ArgumentParser

from lit_pref.cli_errors import readable
from lit_pref.errors import UserError
from lit_pref.processors import usable_processors


def run_function(
    function: Callable[..., None],
    arguments: Sequence[str],
    description: str | None = None,
    named: Sequence[ModuleType] = (),
) -> None:
    """Call the function, which is the command of its name, with what the arguments say.

    description: what `--help` says first; by default the function's own words.
    named: modules whose public classes a mistyped name may have meant.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    options = list(inspect.signature(function).parameters)

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(readable(str(message), named, options))

    description = description or (inspect.getdoc(function) or "").partition("\n")[0]
    parser = Parser(prog=f"lit-pref {function.__name__}", description=description)
    parser.add_argument("--config", action="config", help="A YAML file of these options; a later one or option wins.")
    parser.add_function_arguments(function)
    parsed = parser.parse_args(list(arguments))
    try:
        ready = parser.instantiate(parsed)
    except (ValueError, TypeError) as error:
        raise UserError(readable(str(error), named, options)) from error
    ready.pop("config", None)
    function(**ready)
