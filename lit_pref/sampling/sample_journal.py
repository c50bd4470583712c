"""Completions that were drawn so far of something longer, kept one by one, so that an interruption costs none.

Not covered: what they are made into (graded shards, an evaluation's results), with which the journal goes.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_pref.errors import UserError
from lit_pref.storage.arrays import keep_in_memory
from lit_pref.storage.files import JsonValue
from lit_pref.storage.journal import Journal, JournalTakenError
from lit_pref.types import Completion, Drawn

Places = Mapping[tuple[int, int], Completion]
"""Completions by their prompt and which of its samples they are, both from 0."""


class SampleJournal:
    """Keeps completions in a file, and has those that an earlier run kept there.

    provenance: all that they depend on; what another one left is begun anew.
    cache: the cache folder that the file lies in, which a run can do without; None raises what stops the writing, and
        JournalTakenError where another process writes it.
    found: what an earlier run drew.
    """

    def __init__(self, path: Path, provenance: Mapping[str, JsonValue], cache: Path | None = None) -> None:
        self._cache, self._journal = cache, None
        with self._writing():
            self._journal = Journal(path, provenance)
        self.found = _found(self._journal.rows if self._journal else ())

    def keep(self, drawn: Drawn) -> None:
        made = drawn.completion
        row = {"prompt": drawn.prompt, "sample": drawn.sample, "text": made.text, "token_ids": made.token_ids}
        with self._writing():
            if self._journal is not None:
                self._journal.append({**row, "logps": made.logps, "finished": made.finished})

    def close(self) -> None:
        """Leave the file to a later run."""
        if self._journal is not None:
            self._journal.close()

    def remove(self) -> None:
        """What was made of the completions is kept."""
        if self._journal is not None:
            self._journal.remove()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            if self._cache is None:
                raise
            self.close()
            self._journal = None
            if isinstance(error, JournalTakenError):
                print(f"{error}; this run draws the same completions itself", flush=True)
            else:
                keep_in_memory(self._cache, error)


def _found(rows: Iterable[Mapping[str, Any]]) -> Places:
    """What is no completion is not taken, so that it is drawn again."""
    found = dict[tuple[int, int], Completion]()
    for row in rows:
        with suppress(KeyError, TypeError):
            made = Completion(row["text"], tuple(row["token_ids"]), tuple(row["logps"]), row["finished"])
            found[row["prompt"], row["sample"]] = made
    return found
