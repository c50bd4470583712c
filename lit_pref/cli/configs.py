"""Configuration files as options name them: the kit's own by name, checked before anything is built of them."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from lit_pref.errors import UserError

_FOLDER = Path(__file__).parents[1] / "configs"


def with_own_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the path of the kit's own configuration where `--config` gives its name, as `data/pairs`.

    A file that is called so comes first. Raises UserError for what is no configuration file.
    """
    given, own = list(arguments), _own()
    for place, value in _configs(arguments):
        if value in own and not Path(value).is_file():
            given[place] = given[place].removesuffix(value) + str(own[value])
        else:
            _check(value)
    return given


def options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Options with their values, given as `--option value` or `--option=value`."""
    following = [*arguments[1:], ""][: len(arguments)]
    return [
        (argument.partition("=")[0], argument.partition("=")[2] if "=" in argument else after)
        for argument, after in zip(arguments, following, strict=True)
        if argument.startswith("-")
    ]


def _configs(arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where among the arguments a configuration's name stands, and the name; a missing one is empty."""
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--config", "-c"):
            yield (place, value) if equals else (place + 1, [*arguments, ""][place + 1])


def _own() -> dict[str, Path]:
    """The kit's own configurations by name."""
    return {str(file.relative_to(_FOLDER).with_suffix("")): file for file in sorted(_FOLDER.rglob("*.yaml"))}


def _check(name: str) -> None:
    file = Path(name)
    if not name or name.startswith("-"):
        raise UserError("--config: expected a YAML file or a name, as --config dpo, got nothing")
    if not file.exists() and re.search(r"[:{\n]", name):
        return  # YAML itself
    if not file.is_file():
        raise UserError(f"--config: {name} {'is a folder, no YAML file' if file.is_dir() else _missing(file)}")
    try:
        content = yaml.safe_load(file.read_bytes().decode("utf-8"))
        repr(content)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: expected YAML in UTF-8, got other bytes: {error.reason} at {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{name}: {place}no valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        got = "nothing" if content is None else repr(content)[:80]
        raise UserError(f"{name}: expected keys and values such as seed_everything: 1, got {got}")
    if "..." in repr(content) and _holds_itself(content):
        raise UserError(f"{name}: expected values, got an alias that stands for itself")


def _missing(file: Path) -> str:
    """What is near: a file of the folder, or a name of the kit's own configurations."""
    folder = file.parent
    there = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    if near := get_close_matches(file.name, there, n=1):
        return f"does not exist; did you mean {folder / near[0]}?"
    meant = str(file).removeprefix("configs/").removesuffix(".yaml")
    near = get_close_matches(meant, _own(), n=3) or [each for each in _own() if "/" not in each]
    return f"does not exist, and the kit has none of this name; near: {', '.join(near)}"


def _holds_itself(value: Any, above: tuple[int, ...] = ()) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return id(value) in above or any(_holds_itself(each, (*above, id(value))) for each in inner)
