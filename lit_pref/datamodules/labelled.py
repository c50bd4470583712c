"""Single responses labelled desirable or not, for KTO: of files, or a policy's own samples with execution's verdict.

Rows are `prompt, completion, label` (TRL), the same with `kto_tag` or `instruction, input, output, kto_tag` and
`messages` or `conversations, kto_tag` (LLaMA-Factory), as text or messages. Each row gets a completion of another
prompt after its own, from which KTO estimates its KL term: TRL takes it from the row before within a batch of
sequential rows; here it is drawn once from the whole split, so that rows may be shuffled. Where one prompt has more
than half of the rows, some of its rows meet completions of the same prompt. Not covered: tokens kept on the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lit_pref.data.formats.pairs import DemonstrationKeys, to_demonstration
from lit_pref.data.formats.records import read_records
from lit_pref.data.reading.rows import OnBadRow, Row, RowError, first_key, value_at
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules.execution import _ExecutionDataModule
from lit_pref.datamodules.files import FileRecords, SplitNames, named_sources
from lit_pref.datamodules.telling import tell_left_out
from lit_pref.datamodules.trees import Loading, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.sampling import distinct_answers
from lit_pref.types import Outcome, Split, Text, TextTree, TokenTree

_LABELS = {1: True, 0: False, "true": True, "false": False, "1": True, "0": False}  # True is 1 to a dict


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """A response and whether it is desirable; `completion_ids` and `location` as in `PreferencePair`."""

    prompt: Text
    completion: Text
    label: bool
    completion_ids: tuple[int, ...] | None = None
    location: str = field(default="", compare=False)

    @property
    def tree(self) -> TextTree:
        sampled = (self.completion_ids,)
        return TextTree("labelled", self.prompt, (self.completion,), sampled, float(self.label), self.location)


@dataclass(frozen=True)
class LabelledKeys:
    """Key names of the user's own; without `prompt_key` there is no prompt."""

    prompt_key: str | None = "prompt"
    completion_key: str = "completion"
    label_key: str = "label"


def to_labelled(row: Row, keys: LabelledKeys | None = None) -> LabelledResponse:
    """The labelled response of a row; Raises RowError that names the place, the key and what stood there."""
    named = None if keys is None else DemonstrationKeys(keys.prompt_key, keys.completion_key)
    label_key = first_key(row, ("label", "kto_tag")) or "label" if keys is None else keys.label_key
    stated = value_at(row, label_key)
    known = stated.strip().lower() if isinstance(stated, str) else stated
    if not isinstance(known, str | bool | int) or known not in _LABELS:
        raise RowError("not a label", f'{row.location}: expected true or false under "{label_key}", got {stated!r:.40}')
    found = to_demonstration(row, named)
    return LabelledResponse(found.prompt, found.completion, _LABELS[known], found.completion_ids)


def with_mismatched(trees: Sequence[TokenTree], seed: int, max_length: int | None = None) -> list[TokenTree]:
    """Trees of one completion, each followed by another tree's; every completion comes once as such.

    max_length: of a prompt with the other completion, which is cut there.
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, tree in enumerate(trees):
        rows_of.setdefault(tree.prompt_ids, []).append(row)
    groups = list(rows_of.values())
    order = [row for group in np.random.default_rng(seed).permutation(len(groups)) for row in groups[group]]
    shift = max(map(len, groups), default=0)  # beyond all rows of the same prompt
    other = {row: order[(place + shift) % len(order)] for place, row in enumerate(order)}
    paired = []
    for row, (prompt, own) in enumerate(trees):
        room = None if max_length is None else max(1, max_length - len(prompt))
        paired.append(TokenTree(prompt, (*own, trees[other[row]].completion_ids[0][:room])))
    return paired


class LabelledDataModule(_TreeDataModule):
    """Labelled responses of files and data sets.

    Args:
        train: a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id.
        validation: likewise.
        test: likewise.
        splits: of a folder or hub data set, or slices of them.
        validation_size: how much of `train` is held out for validation where that has no source: a share in [0, 1),
            above 0 at least one prompt, or a number of responses; whole prompts.
        test_size: likewise, for test.
        keys: the rows' key names where they are none of the known formats.
        limits: lengths in tokens, and what becomes of longer rows.
        on_bad_row: as of `PairsDataModule`.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: responses a batch and device; the KL term is estimated from as many.
        loading: batches of so many tokens instead, and worker processes.
        seed: of the order and of who is mismatched with whom; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        splits: SplitNames = SplitNames(),  # noqa: B008 - frozen
        validation_size: int | float = 0.05,
        test_size: int | float = 0,
        keys: LabelledKeys | None = None,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        on_bad_row: OnBadRow = "error",
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        super().__init__(policy, batch_size, loading, seed)
        self.limits, self.on_bad_row = limits, on_bad_row
        self.files = FileRecords(
            named_sources(train, validation, test, splits),
            {"validation": validation_size, "test": test_size},
            self.seed,
            lambda named: read_records(to_labelled, named.source, named.split, keys, on_bad_row),
        )

    def splits(self) -> list[Split]:
        return self.files.splits()

    def _add(self, split: Split) -> None:
        source, (responses, skipped) = self.files.source(split), self.files.of(split)
        made = tokenize(responses, self.module.tokenizer, self.limits, self.module.append_eos, self.on_bad_row, skipped)
        if not made.trees:
            raise UserError(f"no response of {source} is left for {split}: {made.counts}")
        if self.first:
            folder = None if self.trainer is None else Path(self.trainer.default_root_dir)
            tell_left_out(source, split, len(responses), skipped.to_json(), folder)
        self._check_vocabulary(max(max((*tree.prompt_ids, *tree.completion_ids[0])) for tree in made.trees))
        trees = with_mismatched(made.trees, self.seed, self.limits.max_length)
        self._keep(split, "labelled", trees, made.values, _counted(made.values) | made.counts)


class ExecutionLabelsDataModule(_ExecutionDataModule):
    """The distinct samples of each problem, desirable where they pass its tests."""

    def _add(self, split: Split) -> None:
        responses = [
            LabelledResponse(
                answer.prompt,
                answer.completion,
                outcome is Outcome.PASSED,
                answer.completion_ids if self.own_tokens else None,
            )
            for answer, outcome in distinct_answers(self._graded(split).samples)
        ]
        if len({response.label for response in responses}) < 2:
            raise UserError(
                f"the {len(responses)} usable samples of {split} all pass or all fail: raise samples.each or "
                f"{split}_size, or take a policy that solves some of the problems"
            )
        made = tokenize(responses, self.module.tokenizer, append_eos=self.module.append_eos)
        rows = made._replace(trees=with_mismatched(made.trees, self.seed))
        self._keep_counted(split, "labelled", rows, _counted(made.values))


def _counted(labels: Sequence[float] | None) -> dict[str, int]:
    desirable = int(sum(labels or ()))
    return {"desirable": desirable, "undesirable": len(labels or ()) - desirable}
