"""Functions as commands: their arguments are options and YAML keys, classes go by their bare names.

A command may have recipes, each a function of its own; `--recipe` or a YAML file names one.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import torch
import yaml

from lit_pref.cli.configs import options, with_own_configs
from lit_pref.cli.errors import BY_CONSTRUCTORS, PlainParser, of_constructor
from lit_pref.errors import UserError
from lit_pref.machine.processors import usable_processors


class Recipe(NamedTuple):
    """One of a command's functions.

    example: a whole command, shown by `--help` and where an argument is missing.
    description: what `--help` says first; by default the function's own words.
    """

    function: Callable[..., None]
    example: str
    description: str = ""


def run_command(arguments: Sequence[str], recipes: Mapping[str, Recipe]) -> None:
    """Call the function of the recipe that the arguments name with what they say; the first one by default."""
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    command, *given = with_own_configs(arguments)
    name = _chosen(given, [*recipes]) if len(recipes) > 1 else next(iter(recipes))
    function, example, description = recipes[name]
    said = description or (inspect.getdoc(function) or "").partition("\n")[0]
    parser = PlainParser(prog=f"lit-pref {command}", description=said)
    parser.example = example
    parser.add_argument("--config", action="config", help="A YAML file or a name; a later one or option wins.")
    if len(recipes) > 1:
        parser.add_argument("--recipe", default=name, help=f"One of {', '.join(recipes)}; see each one's --help.")
    parser.add_function_arguments(function, as_group=False)
    parsed = parser.parse_args(given)
    try:
        ready = parser.instantiate(parsed)
    except BY_CONSTRUCTORS as error:
        raise of_constructor(error) from error
    for own in ("config", "recipe"):
        ready.pop(own, None)
    function(**ready)


@contextmanager
def of_option(option: str) -> Iterator[None]:
    """A ValueError inside is told of the option; a UserError says itself where it lies."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def writable_folder(option: str, folder: Path) -> Path:
    """Make a command's output folder before its work begins; Raises UserError, which names the option."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(f"{option}: {folder} is no folder that can be written: {error.strerror}") from error


def results_folder(output: Path | None, evaluated: str) -> Path:
    """Where an evaluation writes, which is not made yet: by time, and a number where that is taken.

    Raises UserError where another one's results are.
    """
    if output is None:
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        named = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        folders = (Path("runs", "evaluate", evaluated, name) for name in named)
        return next(folder for folder in folders if not folder.exists())
    if (output / "results.json").exists():
        raise UserError(f"--output: {output} holds the results of another evaluation; name another folder")
    return output


def _chosen(arguments: Sequence[str], names: Sequence[str]) -> str:
    """The recipe that `--recipe` or a YAML file's key `recipe` names; the last one of them, as with all options."""
    chosen, place = names[0], ""
    for option, value in options(arguments):
        if option == "--recipe":
            chosen, place = value, "--recipe"
        elif option == "--config" and (named := _recipe_in(Path(value))) is not None:
            chosen, place = named, f"{value}: recipe"
    if chosen not in names:
        near = get_close_matches(chosen, names, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
        raise UserError(f"{place}: there is no recipe {chosen!r}; {meant}")
    return chosen


def _recipe_in(file: Path) -> str | None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # the parser says what is wrong with it
    return str(content["recipe"]) if isinstance(content, dict) and "recipe" in content else None
