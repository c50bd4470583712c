"""The folder of an evaluation that has no results yet: a journal of completions, which the same command goes on with.

Not covered: generators that do not say what their completions depend on; those are drawn anew.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lit_pref.cli.functions import results_folder, writable_folder
from lit_pref.errors import UserError
from lit_pref.sampling import SamplingJob
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.storage.files import JsonValue, differences
from lit_pref.storage.journal import JournalTakenError, journal_provenance

_JOURNAL = "drawn.jsonl"


class Unfinished(NamedTuple):
    """An evaluation's folder, and the journal of the completions in it, where they can be told from others."""

    folder: Path
    journal: SampleJournal | None


@contextmanager
def unfinished(output: Path | None, job: SamplingJob) -> Iterator[Unfinished]:
    """What an interrupted run of the same job has left, or a new folder; for this process alone until the block ends.

    output: the one folder that it may be; None looks through those that have no other name than their time.

    Raises UserError where other results or another evaluation's journal are in output, and where another process is
    writing there.
    """
    found = _found(output, job)
    try:
        yield found
    finally:
        if found.journal is not None:
            found.journal.close()


def forget(folder: Path) -> None:
    """The evaluation has its results."""
    (folder / _JOURNAL).unlink(missing_ok=True)


def _found(output: Path | None, job: SamplingJob) -> Unfinished:
    if job.policy is None:
        return Unfinished(writable_folder("--output", results_folder(output, job.task.name)), None)
    now = json.loads(json.dumps(job.provenance()))
    if output is None:
        for path in sorted(results_folder(None, job.task.name).parent.glob(f"*/{_JOURNAL}"), reverse=True):
            if journal_provenance(path) == now:
                with suppress(JournalTakenError):
                    return _begun(path.parent, now)
    folder = writable_folder("--output", results_folder(output, job.task.name))
    there = journal_provenance(folder / _JOURNAL)
    if there is not None and there != now:
        raise UserError(
            f"--output: {folder} holds an unfinished evaluation that was made otherwise ({differences(there, now)}); "
            "name another folder or delete this one"
        )
    return _begun(folder, now)


def _begun(folder: Path, provenance: Mapping[str, JsonValue]) -> Unfinished:
    journal = SampleJournal(folder / _JOURNAL, provenance)
    if journal.found:
        print(f"going on with the unfinished evaluation in {folder}", flush=True)
    return Unfinished(folder, journal)
