"""What stands in a row of problems: texts, lists, numbers and names under its keys, each refused by name where not."""

from collections.abc import Sequence

from lit_pref.data.reading.rows import Row, RowError, string_at


def text_in(row: Row, *keys: str) -> str:
    """The text under the first of the keys that the row has; Raises RowError where there is none."""
    return string_at(row, _key(row, keys))


def told_in(row: Row, *keys: str) -> str:
    """The same, without space around it; Raises RowError where nothing is left."""
    told = text_in(row, *keys).strip()
    if not told:
        raise RowError("empty text", f'{row.location}: "{_key(row, keys)}" is empty: expected what is asked for')
    return told


def texts_in(row: Row, key: str) -> list[str]:
    """The list of texts under a key; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise RowError("not a list of strings", f"{row.location}: expected a list of texts under {_found(key, value)}")
    return [string_at(Row(row.location, {key: each}), key) for each in value]


def lists_in(row: Row, key: str) -> list[list[object]]:
    """The list of argument lists under a key, where `{}` is an empty one; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if value == {}:
        return []
    if not isinstance(value, list) or not all(isinstance(each, list) for each in value):
        raise RowError("not lists", f"{row.location}: expected a list of argument lists under {_found(key, value)}")
    return value


def number_in(row: Row, key: str) -> float:
    """The number under a key; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("not a number", f"{row.location}: expected a number under {_found(key, value)}")
    return value


def identifier_in(row: Row, key: str) -> str:
    """The text or whole number under a key, as text; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError("no identifier", f"{row.location}: expected a name or number under {_found(key, value)}")
    return str(value)


def _key(row: Row, keys: Sequence[str]) -> str:
    for key in keys:
        if key in row.values:
            return key
    there = ", ".join(row.values) or "none"
    names = " or ".join(f'"{key}"' for key in keys)
    raise RowError("missing key", f"{row.location}: expected the key {names}, there stand: {there}")


def _found(key: str, value: object) -> str:
    return f'"{key}", got {type(value).__name__} {str(value)[:40]!r}'
