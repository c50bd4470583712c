"""A function's arguments as a command's options: YAML files, classes by their bare names, mistakes in a sentence.

A command may have recipes, each a function of its own: `chosen_recipe` finds which one the arguments or files name.
"""

import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import torch
import yaml

from lit_pref.cli.configs import options
from lit_pref.cli.errors import BY_CONSTRUCTORS, PlainParser, of_constructor
from lit_pref.errors import UserError
from lit_pref.machine.processors import usable_processors


class Recipe(NamedTuple):
    """One of a command's functions. name: of the recipe; command: whose it is; names: of all its recipes."""

    name: str
    command: str
    names: Sequence[str]


def run_function(
    function: Callable[..., None],
    arguments: Sequence[str],
    example: str,
    description: str | None = None,
    recipe: Recipe | None = None,
) -> None:
    """Call the function, which is the command of its name, with what the arguments say.

    example: a whole command, shown where an argument is missing.
    description: what `--help` says first; by default the function's own words.
    recipe: where the function is one of a command's recipes.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    description = description or (inspect.getdoc(function) or "").partition("\n")[0]
    parser = PlainParser(prog=f"lit-pref {recipe.command if recipe else function.__name__}", description=description)
    parser.example = example
    parser.add_argument("--config", action="config", help="A YAML file of these options; a later one or option wins.")
    if recipe:
        parser.add_argument(
            "--recipe", default=recipe.name, help=f"One of {', '.join(recipe.names)}; see each one's --help."
        )
    parser.add_function_arguments(function, as_group=False)
    parsed = parser.parse_args(list(arguments))
    try:
        ready = parser.instantiate(parsed)
    except BY_CONSTRUCTORS as error:
        raise of_constructor(error) from error
    ready.pop("config", None)
    ready.pop("recipe", None)
    function(**ready)


def writable_folder(option: str, folder: Path) -> Path:
    """Make a command's output folder before its work begins; Raises UserError, which names the option."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(f"{option}: {folder} is no folder that can be written: {error.strerror}") from error


def results_folder(output: Path | None, evaluated: str) -> Path:
    """Where an evaluation writes, which is not made yet; Raises UserError where another one's results are."""
    folder = output or Path("runs", "evaluate", evaluated, f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    if (folder / "results.json").exists():
        raise UserError(f"--output: {folder} holds the results of another evaluation; name another folder")
    return folder


def chosen_recipe(arguments: Sequence[str], names: Sequence[str], default: str) -> str:
    """The recipe that `--recipe` or a YAML file's key `recipe` names; the last one of them, as with all options.

    Raises UserError for a name that there is not.
    """
    chosen, place = default, ""
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
