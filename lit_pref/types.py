"""The nouns of the kit: text records, token trees, batches, log-probs, verdicts, and the interfaces between layers.

Shape legend, used everywhere; a tensor's name ends in its shape (`logps_K`):
    B rows of a batch as a model sees them        T tokens of such a row      N scored (completion) tokens of a batch
    R rows of a data set   K completions          P preference pairs          V vocabulary      D width of hidden states

Text records are frozen. Batches are named tuples of tensors, so that every Lightning strategy can move them.
A mask is named for what True means. Nothing here knows a tokenizer, a model or a file.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, TypedDict, get_args

from torch import Tensor

Split = Literal["train", "validation", "test"]

Dtype = Literal["float32", "bfloat16", "float16"]
"""The precision of weights, by torch's names."""


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it."""

    role: str
    content: str


Text = str | tuple[Message, ...]
"""Plain text, or the turns of a conversation."""


# --- text records -----------------------------------------------------------------------------------------------------


class TextTree(NamedTuple):
    """A prompt and its completions: what every record comes to before it is tokenized.

    kind: what the record is, as error messages call it.
    sampled: the very tokens of each completion; None where its text is to be tokenized.
    value: what the data says of the record, as a pair's margin; None where it says nothing.
    location: the file and line that it was read from; empty for one that was made.
    """

    kind: str
    prompt: Text
    completions: tuple[Text, ...]
    sampled: tuple[tuple[int, ...] | None, ...]
    value: float | None = None
    location: str = ""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one prompt; either all three are plain text, or all three are conversations.

    chosen_ids, rejected_ids: the very tokens that were sampled, EOS included where the model emitted it; training
        then uses them as they are instead of tokenizing the text again.
    margin: by how much chosen is better, where the data says so.
    location: the file and line that it was read from; empty for one that was made. Equal pairs may differ in it.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    margin: float | None = None
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None
    location: str = field(default="", compare=False)

    @property
    def tree(self) -> TextTree:
        sampled = (self.chosen_ids, self.rejected_ids)
        return TextTree("pair", self.prompt, (self.chosen, self.rejected), sampled, self.margin, self.location)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the response to imitate; `completion_ids` and `location` as in `PreferencePair`."""

    prompt: Text
    completion: Text
    completion_ids: tuple[int, ...] | None = None
    location: str = field(default="", compare=False)

    @property
    def tree(self) -> TextTree:
        sampled = (self.completion_ids,)
        return TextTree("demonstration", self.prompt, (self.completion,), sampled, location=self.location)


@dataclass(frozen=True, slots=True)
class Completion:
    """A sampled response.

    token_ids: the sampled tokens, EOS included where it was emitted.
    logps: log-prob of each of them under the model that sampled, in nats, at temperature 1 and without truncation.
    finished: ended by EOS; False means that it was cut at the length limit.
    """

    text: str
    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One input/output test: a Python expression to evaluate after the program, and the literal it must equal."""

    call: str
    expected: str


@dataclass(frozen=True, slots=True)
class IOCase:
    """What a program is given on its standard input, and what it must print; space at line ends does not count."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class Check:
    """Python test code that runs in a process of its own and calls into the program's: unittest-like asserts.

    code: raises AssertionError where the program is wrong; to pass it must run to its end.
    context: trusted source that is executed before it: imports and helper functions.
    entry_points: names that mean the program's, though the context may define them too. So do names that are used and
        defined nowhere here. Tests meet its objects as Python would let them, but for what the licence tells.
    licence: what the tests may leave to methods of the program's objects though they could cheat there, as
        `f(1) == 5` could with an `__eq__` of its own: what the reference needed, from its `Verdict`. None: the program
        is a reference, and what it needs is recorded.
    """

    code: str
    context: str = ""
    entry_points: tuple[str, ...] = ()
    licence: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt that knows how its completions are graded.

    id: stable over runs and unique within a task.
    composition: what it is made of; splits share none.
    reference: a completion that passes.
    entry_point: the function that a completion must define, where the task says so.
    answer: what a completion must come to in the end, where it is graded by that.
    aliases: other names that a file of samples may call it by, such as its place in its data set, from 0.
    """

    id: str
    prompt: Text
    reference: str
    cases: tuple[Case | IOCase, ...] = ()
    composition: str = ""
    check: Check | None = None
    entry_point: str = ""
    answer: str = ""
    aliases: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question with its options, one of which is right.

    options: completions of the prompt, each as it is scored.
    answer: which of them is right, from 0.
    composition: as in `Problem`.
    """

    id: str
    prompt: Text
    options: tuple[str, ...]
    answer: int
    composition: str = ""

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"{self.id}: a question needs at least 2 options, got {len(self.options)}")
        if not 0 <= self.answer < len(self.options):
            raise ValueError(f"{self.id}: answer must be in 0..{len(self.options) - 1}, got {self.answer}")


# --- running programs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """Python source to execute, and tests whose results are compared outside the program's process.

    All cases are of one kind, and there are none beside a check. Without either, to run to the end is to pass.
    """

    source: str
    cases: tuple[Case | IOCase, ...] = ()
    check: Check | None = None


class Outcome(StrEnum):
    """How an execution ended. Only HARNESS_ERROR is ours; it never counts as the program's.

    NO_CODE: there is no program in the completion; nothing was executed.
    NO_ANSWER: the completion comes to no final answer.
    """

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SYNTAX_ERROR = "syntax_error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"
    NO_CODE = "no_code"
    NO_ANSWER = "no_answer"
    HARNESS_ERROR = "harness_error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one program or graded answer.

    case: index of the first case that failed or raised, where there is one.
    detail: the exception and its line, or expected and got, in one line.
    licence: where a reference passed, what its check needed of it: `dataclasses.replace(check, licence=...)`.
    """

    outcome: Outcome
    case: int | None = None
    detail: str = ""
    licence: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED


class Sandbox(ABC):
    """Runs untrusted programs."""

    @abstractmethod
    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        """One verdict a program, in order; equal for any concurrency."""

    def results(self, programs: Sequence[Program]) -> list[tuple[str, ...]]:
        """What the calls of each program's cases give, as literals, up to the first that gives no plain value."""
        raise NotImplementedError(f"{type(self).__name__} gives verdicts alone")


FailingReferences = Literal["leave_out", "error"]
"""What becomes of problems whose references fail their own tests: they are left out and counted, or they stop all."""


class Task(ABC):
    """Problems, and the grading of completions.

    references_pass: references are right by construction, so that nobody runs them before samples are graded.
    stop: texts that end a completion of its problems, see `Sampling`.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)
    references_pass: bool = False
    stop: tuple[str, ...] = ()
    failing_references: FailingReferences = "leave_out"

    @abstractmethod
    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` distinct problems of a split; a pure function of its arguments and the task's own settings."""

    @abstractmethod
    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each problem and its completion's text (what follows the prompt)."""

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with completions to imitate; their references unless a task differs."""
        return [Demonstration(problem.prompt, problem.reference) for problem in self.problems(split, count, seed)]

    def with_stops(self, sampling: "Sampling") -> "Sampling":
        """How completions of its problems are drawn: as asked, with its own stops on top."""
        return replace(sampling, stop=tuple(dict.fromkeys((*sampling.stop, *self.stop))))


class ChoiceTask(ABC):
    """Questions with options."""

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)

    @abstractmethod
    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        """`count` distinct questions of a split, as `Task.problems`; None is all of a data set."""


class PairTask(ABC):
    """Preference pairs that a task knows how to make."""

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)

    @abstractmethod
    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """`count` pairs of a split, as `Task.problems`; with a larger count the same ones come first."""


_COLDEST = 1e-5  # logits of thousands, divided by it, are still far from where fp32 overflows


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class Sampling:
    """How completions are drawn.

    Args:
        temperature: 0 is greedy, 1 the model's own distribution; the least above 0 is 1e-5, as it divides.
        top_p: the likeliest tokens that hold this share of the mass are kept; 1 keeps all.
        max_new_tokens: where a completion is cut if it has not ended.
        stop: texts of which the first to appear ends a completion, and is no part of its text; a task's own come on
            top.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or _COLDEST <= self.temperature < math.inf):
            raise ValueError(
                f"temperature must be >= 0, got {self.temperature}: 0 is greedy decoding, and what divides logits must "
                f"be finite and at least {_COLDEST}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if "" in self.stop:
            raise ValueError("stop must hold texts of at least one character")


class Drawn(NamedTuple):
    """A completion, of which prompt, and which of its samples; both count from 0."""

    prompt: int
    sample: int
    completion: Completion


class Generator(ABC):
    """Prompts to completions."""

    @abstractmethod
    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order; seeded."""

    def each(
        self,
        prompts: Sequence[Text],
        samples: int,
        sampling: Sampling,
        seed: int,
        done: Collection[tuple[int, int]] = (),
    ) -> Iterator[Drawn]:
        """The same completions one by one, as they come to their end, but for the (prompt, sample) that are done.

        So that whoever keeps each can go on after an interruption. Here all are made before the first is given.
        """
        left = set(itertools.product(range(len(prompts)), range(samples))) - set(done)
        if left:
            made = self.generate(prompts, samples, sampling, seed)
            for prompt, several in enumerate(made):
                yield from (
                    Drawn(prompt, sample, each) for sample, each in enumerate(several) if (prompt, sample) in left
                )


# --- tokens -----------------------------------------------------------------------------------------------------------


class TokenTree(NamedTuple):
    """A prompt's tokens and those of its completions: the unit that is packed into batches."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[tuple[int, ...], ...]

    @property
    def shared_length(self) -> int:
        """Tokens it takes when its completions share the prompt."""
        return len(self.prompt_ids) + sum(map(len, self.completion_ids))

    @property
    def repeated_length(self) -> int:
        """Tokens of the same completions with the prompt repeated before each: what peers process."""
        return len(self.completion_ids) * len(self.prompt_ids) + sum(map(len, self.completion_ids))


RowLayout = Literal["packed", "shared", "repeated"]
"""How trees lie in a batch: one after another in one row without padding; one a row, padded to the longest; or, for
models which cannot share prompts, each completion in a row of its own with its prompt repeated before it."""


class TreeSpan(NamedTuple):
    """Where one tree lies: its row, the column of its first token, and its lengths in tokens."""

    row: int
    start: int
    prompt: int
    branches: tuple[int, ...]


class StepWeight(NamedTuple):
    """What a batch's means count for in its optimizer step: batch size over mean batch size of the step.

    The mean of weight · batch mean over a step's batches, on all ranks, is then the mean over all the step's rows
    (pairs, demonstrations), or over all its tokens that are imitated. 1 where a batch is a step of its own; both are 0
    for a batch that only keeps a rank in step with the others: nothing is trained on it or measured of it.
    """

    rows: float = 1.0
    tokens: float = 1.0


class TreeBatch(NamedTuple):
    """Token trees laid out in rows; see `lit_pref.data.batches.packing.collate_trees`.

    A token sees the tokens at or before it that belong to its tree and to the prompt or its own branch.
    Completions are numbered 0..K-1 over the batch, tree by tree in the order given.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor  # each branch goes on from its prompt's end
    tree_BT: Tensor  # which tree of the row, from 0; -1 is padding
    branch_BT: Tensor  # -1 padding, 0 prompt, 1.. the tree's branches
    predictor_N: Tensor  # flat index (row * T + column) of the position that predicts each completion token
    target_N: Tensor  # that token
    completion_N: Tensor  # the completion it belongs to
    last_K: Tensor  # flat index of each completion's last token
    length_K: Tensor  # completion tokens
    num_tokens: int  # with the prompt counted once a completion, so that layouts and peers compare
    plain: bool  # every row is one right-padded sequence: ordinary causal attention is exact
    spans: tuple[TreeSpan, ...]  # the trees in the order given, so that attention can go tree by tree


class RowBatch(NamedTuple):
    """Rows of a data set, each a prompt with its completions, and what is known of them.

    Completions are numbered 0..K-1 over the batch, row by row; views such as pairs are the modules' own.
    """

    trees: TreeBatch
    kind: str  # what a row is: "pair", "demonstration", ...
    row_R: Tensor  # its number in the data set
    value_R: Tensor | None  # what the data says of it: a pair's margin, a label; fp32
    sibling_K: Tensor  # which of its row's completions each one is, from 0
    key_K: Tensor  # 64 bits that are equal for equal prompts and completions, in tokens
    weight: StepWeight = StepWeight()


class PairLogps(NamedTuple):
    """Summed log-probs of chosen and rejected responses, in nats, and their lengths in tokens; each [P]."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
