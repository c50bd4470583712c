import importlib.util
import sys
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pref.errors import UserError
from lit_pref.evaluation import PassAtK, pass_at_k
from lit_pref.evaluation.grading import Counts, HarnessError
from lit_pref.evaluation.pass_at_k import figures
from lit_pref.generation import LocalGenerator
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.tasks import CodeTask, HumanEval
from lit_pref.types import Check, Completion, Generator, Outcome, Problem, Sampling, Task, Verdict


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_the_estimator_is_the_mean_over_all_subsets(samples):
    for k in range(1, samples + 1):
        for passed in range(samples + 1):
            outcomes = [1] * passed + [0] * (samples - passed)
            subsets = list(combinations(outcomes, k))
            expected = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at_k(torch.tensor([passed]), samples, k).item() == pytest.approx(expected)


def test_problems_with_different_numbers_of_samples():
    # 1 of 2 and 1 of 4: pass@2 is 1 - C(1,2)/C(2,2) = 1 and 1 - C(3,2)/C(4,2) = 1/2
    torch.testing.assert_close(pass_at_k(torch.tensor([1, 1]), torch.tensor([2, 4]), 2), torch.tensor([1.0, 0.5]))
    with pytest.raises(ValueError, match="pass@3 needs at least 3 samples a problem, got 2"):
        pass_at_k(torch.tensor([1, 1]), torch.tensor([2, 4]), 3)


@pytest.mark.parametrize("k", [[], [0], [1, -1]])
def test_a_k_that_is_none(k):
    with pytest.raises(ValueError, match="k must hold numbers >= 1"):
        PassAtK(CodeTask(), k=k)


def test_k_needs_as_many_samples():
    with pytest.raises(ValueError, match="pass@4 needs at least 4 samples a problem, got 2"):
        PassAtK(CodeTask(), k=[1, 4], samples=2)


# --- figures that are kept --------------------------------------------------------------------------------------------


class Even(Task):
    """Passes the samples of even numbers; `worst` is what the others come to."""

    name = "even"

    def __init__(self, worst: Outcome = Outcome.FAILED, prefix: str = "") -> None:
        self.worst, self.prefix = worst, prefix

    def problems(self, split, count, seed):
        return [Problem(f"{i}", f"{self.prefix}{split} {seed} {i}", "") for i in range(count)]

    def grade(self, problems, completions):
        return [Verdict(self.worst if int(text) % 2 else Outcome.PASSED) for text in completions]


class Policy(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        shape = {"vocab_size": 884, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=1))
        self.tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))


@pytest.fixture
def sampled(monkeypatch):
    """How many prompts each call of the generator got; sample i of a prompt is the text `i`."""
    calls = []

    def generate(self, prompts, samples, sampling, seed):
        calls.append(len(prompts))
        return [[Completion(str(i), (1,), (0.0,), True) for i in range(samples)] for _ in prompts]

    monkeypatch.setattr(LocalGenerator, "generate", generate)
    monkeypatch.setattr(LocalGenerator, "each", Generator.each)
    return calls


def evaluation(folder, task=None, **changes):
    settings = {"problems": 6, "k": (1, 2), "samples": 3, "sampling": Sampling(), "cache_folder": folder}
    return PassAtK(task or Even(), **(settings | changes))


def test_the_same_weights_are_measured_once(tmp_path, sampled):
    first = evaluation(tmp_path)(Policy())
    # 2 of 3 samples pass: pass@1 is 2/3, and of any two samples one passes
    torch.testing.assert_close(first, {"pass@1": torch.full((6,), 2 / 3), "pass@2": torch.ones(6)})
    torch.testing.assert_close(evaluation(tmp_path)(Policy()), first, rtol=0, atol=0)
    torch.testing.assert_close(evaluation(tmp_path, k=(2,))(Policy()), {"pass@2": torch.ones(6)})
    assert sampled == [6]


@pytest.mark.parametrize(
    "changes",
    [
        {"problems": 5},
        {"seed": 1},
        {"split": "validation"},
        {"samples": 4},
        {"sampling": Sampling(temperature=0.5)},
        {"task": Even(prefix="other ")},
        {"task": Even(worst=Outcome.ERROR)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_another_setting_or_task_is_measured(tmp_path, sampled, changes):
    evaluation(tmp_path)(Policy())
    evaluation(tmp_path, **changes)(Policy())
    assert len(sampled) == 2


def test_other_weights_and_tokens_are_measured(tmp_path, sampled):
    evaluation(tmp_path)(Policy())
    moved, ending = Policy(), Policy()
    with torch.no_grad():
        moved.model.lm_head.weight[5, 5] += 0.01
    ending.tokenizer.eos_token = "a"
    for module in (moved, ending):
        evaluation(tmp_path)(module)
    assert len(sampled) == 3


def test_other_code_of_the_task_is_measured(tmp_path, sampled):
    def imported(source):
        file = tmp_path / "own_task.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location("own_task", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patched:
        for passes in ("0", "1"):
            own = imported(OWN_TASK.format(passes=passes))
            patched.setitem(sys.modules, "own_task", own)
            figures = evaluation(tmp_path, own.Own())(Policy())
            assert figures["pass@1"].tolist() == pytest.approx([1 / 3] * 6)
    assert len(sampled) == 2


OWN_TASK = """
from lit_pref.types import Outcome, Problem, Task, Verdict

class Own(Task):
    name = "own"

    def problems(self, split, count, seed):
        return [Problem(str(i), str(i), "") for i in range(count)]

    def grade(self, problems, completions):
        return [Verdict(Outcome.PASSED if text == "{passes}" else Outcome.FAILED) for text in completions]
"""


def test_problems_that_are_checked_otherwise_are_measured(tmp_path, sampled, monkeypatch):
    evaluation(tmp_path)(Policy())
    checked = [Problem(f"{i}", f"test 0 {i}", "", check=Check("assert f() == 1")) for i in range(6)]
    monkeypatch.setattr(Even, "problems", lambda *_: checked)
    evaluation(tmp_path)(Policy())
    assert len(sampled) == 2


def test_problems_that_come_to_another_answer_are_measured(tmp_path, sampled, monkeypatch):
    for answer in ("1", "2", "2"):
        answered = [Problem(f"{i}", f"test 0 {i}", "", answer=answer) for i in range(6)]
        monkeypatch.setattr(Even, "problems", lambda *_, answered=answered: answered)
        evaluation(tmp_path, Even(Outcome.NO_ANSWER))(Policy())
    assert len(sampled) == 2  # to have no answer is as lasting as a wrong one


def test_a_prefix_keeps_the_figures_of_two_tasks_apart(tmp_path, sampled):
    assert evaluation(tmp_path, prefix="even/")(Policy()).keys() == {"even/pass@1", "even/pass@2"}


def test_an_interrupted_measurement_goes_on_sample_by_sample(tmp_path, sampled, monkeypatch):
    whole = evaluation(tmp_path / "whole")(Policy())
    drawn, left = [], [7]

    def each(self, prompts, samples, sampling, seed, done=()):
        for one in Generator.each(self, prompts, samples, sampling, seed, done):
            if len(drawn) == left[0]:
                raise KeyboardInterrupt
            drawn.append(one[:2])
            yield one

    monkeypatch.setattr(LocalGenerator, "each", each)
    with pytest.raises(KeyboardInterrupt):
        evaluation(tmp_path / "parts")(Policy())
    left[0] = 18
    torch.testing.assert_close(evaluation(tmp_path / "parts")(Policy()), whole, rtol=0, atol=0)
    assert len(drawn) == len(set(drawn)) == 18
    assert not list(tmp_path.rglob("*.drawn.jsonl"))


class Silent(Even):
    """Of three samples the second holds no code."""

    name = "silent"

    def grade(self, problems, completions):
        return [Verdict(Outcome.NO_CODE if text == "1" else Outcome.PASSED) for text in completions]


def test_samples_that_are_no_answers_are_told_apart_also_when_they_are_found_again(tmp_path, monkeypatch, capsys):
    def generate(self, prompts, samples, sampling, seed):
        return [[Completion(str(i), (1,), (0.0,), finished=i > 0) for i in range(samples)] for _ in prompts]

    monkeypatch.setattr(LocalGenerator, "generate", generate)
    monkeypatch.setattr(LocalGenerator, "each", Generator.each)
    line = "silent: of 18 samples 6 were cut at 128 tokens and 6 held no code or answer\n"
    for _ in range(2):
        figures = evaluation(tmp_path, Silent())(Policy())
        assert capsys.readouterr().out == line
        torch.testing.assert_close(figures["pass@1"], torch.full((6,), 2 / 3))
    evaluation(tmp_path, Even())(Policy())
    assert capsys.readouterr().out == "even: of 18 samples 6 were cut at 128 tokens and 0 held no code or answer\n"


def test_a_failure_of_the_harness_costs_its_sample_and_is_not_kept(tmp_path, sampled, capsys):
    found = evaluation(tmp_path, Even(Outcome.HARNESS_ERROR))(Policy())
    # of 0, 1, 2 the 1 is not graded: the other two pass
    torch.testing.assert_close(found["pass@1"], torch.ones(6))
    told = "of 18 samples 0 were cut at 128 tokens and 0 held no code or answer, and of 6 the grading failed"
    assert told in capsys.readouterr().out and not list(tmp_path.rglob("*.npy"))


def test_a_problem_with_too_few_graded_samples_has_no_figure():
    counted = Counts(*(torch.tensor(n) for n in ([1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 2])))
    found = figures(counted, 2, (1, 2))
    assert [values.tolist()[0] for values in found.values()] == [0.5, 1.0]
    assert all(values[1:].isnan().all() for values in found.values())
    assert figures(counted, 2, (1,))["pass@1"].tolist()[:2] == [0.5, 1.0]


def test_a_run_without_a_single_grading_stops(tmp_path, sampled):
    class Broken(Even):
        def grade(self, problems, completions):
            return [Verdict(Outcome.HARNESS_ERROR, detail="no process") for _ in completions]

    with pytest.raises(HarnessError, match="18 of 18 gradings failed; the first: no process"):
        evaluation(tmp_path, Broken())(Policy())


class Referenced(Even):
    """References are as the numbers of the problems."""

    name = "referenced"

    def problems(self, split, count, seed):
        return [replace(each, reference=each.id) for each in super().problems(split, count, seed)]


def test_problems_whose_references_fail_are_left_out(tmp_path, sampled, capsys):
    measure = evaluation(tmp_path, Referenced())
    for told in (True, False):  # before and after training
        assert len(measure(Policy())["pass@1"]) == 3 and measure.left_out == dict.fromkeys("135", "failed")
        assert (
            "3 of 6 problems fail their own tests; they are left out: 1 (failed)" in capsys.readouterr().out
        ) == told


@pytest.mark.parametrize("worst", [Outcome.TIMEOUT, Outcome.MEMORY, Outcome.KILLED])
def test_what_may_be_the_machines_fault_is_not_kept(tmp_path, sampled, worst):
    for _ in range(2):
        evaluation(tmp_path, Even(worst))(Policy())
    assert len(sampled) == 2 and not list(tmp_path.rglob("*.npy"))


def test_a_task_with_a_part_that_does_not_state_itself_is_not_kept(tmp_path, sampled):
    task = Even()
    task.sandbox = nn.Identity  # a class, told by its name
    evaluation(tmp_path, task)(Policy())
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    task.sandbox = object()
    for _ in range(2):
        evaluation(tmp_path, task)(Policy())
    assert len(sampled) == 3 and len(list(tmp_path.rglob("*.npy"))) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_line(tmp_path, sampled, capsys):
    (tmp_path / "file").write_text("")
    figures = evaluation(tmp_path / "file")(Policy())
    torch.testing.assert_close(figures["pass@2"], torch.ones(6))
    assert f"{tmp_path / 'file'}: the cache cannot be written (Not a directory)" in capsys.readouterr().out


def test_a_benchmark_of_one_split_is_measured_on_it_whatever_runs():
    assert [PassAtK(CodeTask()).measured(asked) for asked in ("validation", "test")] == ["validation", "test"]
    assert PassAtK(CodeTask(), "test").measured("validation") == "test"
    assert PassAtK(HumanEval("absent.jsonl")).measured("validation") == "test"


def test_without_a_task_it_measures_that_of_the_runs_data(tmp_path, sampled):
    module, task = Policy(), Even(worst=Outcome.ERROR)
    module.__dict__["_trainer"] = SimpleNamespace(global_rank=0, datamodule=SimpleNamespace(task=task))
    own = PassAtK(problems=6, cache_folder=tmp_path)
    torch.testing.assert_close(own(module), PassAtK(task, problems=6, cache_folder=tmp_path)(module))
    assert own.task is task
    assert own.measured("validation") == "validation"
    module.__dict__["_trainer"] = SimpleNamespace(datamodule=SimpleNamespace())
    with pytest.raises(UserError, match="PassAtK: SimpleNamespace has no task of its own: give one"):
        own(module)
