"""What all methods share: a causal LM with its tokenizer, scored on token trees, and its optimizer.

A method is a subclass whose step reads like the paper's algorithm. Not here: losses, data, evaluation.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_pref.data.batches.position import go_on, rewind
from lit_pref.errors import UserError
from lit_pref.losses import TokenScores, completion_logps, token_scores
from lit_pref.machine.allocator import keep_freed_memory
from lit_pref.metrics import Figures
from lit_pref.models import (
    LoRA,
    adapter_off,
    apart_obstacle,
    attach,
    check_scoring,
    check_vocabulary,
    computed_buffers_kept,
    evaluating,
    lm_head,
    load_causal_lm,
    load_tokenizer,
    predictor_hidden_states,
    sharing_obstacle,
    train_adapter_dropout,
    weights_fingerprint,
)
from lit_pref.models.compute import Compute, prepare_layers, row_layout
from lit_pref.modules.fitting import check_adapter, check_dtype, check_names, run_names, tell_precision
from lit_pref.modules.optimization import follow_length, with_schedule
from lit_pref.modules.reference import Reference
from lit_pref.types import Dtype, RowBatch, Split, TreeBatch

Measured = TypeVar("Measured")


class CompletionScores(NamedTuple):
    """Summed log-probs of a batch's completions, in nats, and by-products of the same pass, token by token."""

    logps_K: Tensor
    entropy_N: Tensor  # in nats
    hit_n: Tensor  # whether greedy decoding gives the token; of first completions only, as TRL counts it


def is_first(batch: RowBatch) -> Tensor:
    """Which completion tokens belong to the first completion of their row, [N]: chosen of a pair, a demonstration's.

    If a method imitates a completion, it is this one.
    """
    return batch.sibling_K[batch.trees.completion_N] == 0


class _LanguageModule(LightningModule):
    """Loads the policy and its tokenizer, scores token trees, counts tokens, configures the optimizer."""

    kinds: ClassVar[tuple[str, ...]] = ("pair",)  # of the rows that the method trains on
    needs_lm_head = True
    append_eos = True  # whether data modules end each completion with EOS
    averages_tokens = False  # whether the loss is a mean over imitated tokens, which needs `weight.tokens`
    lowest: ClassVar[tuple[str, ...]] = ()  # figures whose least value is logged instead of the mean
    highest: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        policy: str,
        random_init: bool,
        adapter: LoRA | None,
        dropout: bool,
        compute: Compute,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__()
        self.policy, self.random_init, self.dropout = policy, random_init, dropout
        self.weights_dtype = check_dtype(dtype, adapter)
        # Fresh weights follow the run's seed_everything, which is what torch was last seeded with.
        self.model = load_causal_lm(policy, random_init, torch.initial_seed(), dtype, self.needs_lm_head)
        self.tokenizer = load_tokenizer(policy)
        check_vocabulary(self.model, self.tokenizer)
        check_scoring(self.model, logps=self.needs_lm_head, opened=True)
        self.adapter, self.base_fingerprint = adapter, ""
        if adapter is not None:
            self._attach(adapter)
        self.compute = compute
        prepare_layers(self.model, compute)
        self.row_layout = row_layout(self.model, compute.layout)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.num_tokens = self._tokens_at_step = 0
        self._noise_seed = torch.initial_seed()
        stages = get_args(Split)
        self.metrics = nn.ModuleDict({f"of_{stage}": Figures(self.lowest, self.highest) for stage in stages})
        self._batch_tokens, self._batch_start = 0, 0.0
        self._watched: tuple[RowBatch, dict[str, Tensor]] | None = None
        self.reference: Reference | None = None  # set by a method that compares with its start policy

    def _attach(self, adapter: LoRA) -> None:
        if self.random_init:
            raise UserError(
                "random_init: an adapter would leave the policy's fresh weights as they were drawn; drop one of the two"
            )
        # Now, since the Trainer may round the weights later; they are frozen from here on.
        self.base_fingerprint = weights_fingerprint(self.model)
        attach(self.model, adapter, seed=torch.initial_seed())
        self.strict_loading = False  # the base is in no checkpoint

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_LanguageModule":
        """As torch's, for moves and casts; also of `--trainer.precision bf16-true`."""
        with computed_buffers_kept(self):
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def adapter_off(self) -> AbstractContextManager[None]:
        """The policy with its adapter switched off, that is its base; unchanged without an adapter."""
        return adapter_off(self.model)

    def score(self, trees: TreeBatch) -> TokenScores:
        """Log-prob, entropy and greedy hit of each completion token, [N]."""
        hidden_ND = predictor_hidden_states(self.model, trees, self.compute.attention)
        return token_scores(hidden_ND, lm_head(self.model), trees.target_N)

    def score_completions(self, batch: RowBatch) -> CompletionScores:
        """Log-probs of each completion, with a gradient, and by-products."""
        scores, trees = self.score(batch.trees), batch.trees
        logps_K = completion_logps(scores.logps_N, trees.completion_N, len(trees.length_K))
        return CompletionScores(logps_K, scores.entropy_N, scores.correct_N[is_first(batch)])

    def finite_logps(self, batch: RowBatch) -> Tensor:
        """Log-probs of each completion, [K]. Raises UserError for one that is NaN or infinite."""
        logps_K, _, _ = self.score_completions(batch)
        row_K = (batch.sibling_K == 0).cumsum(0) - 1
        self._check_finite({"the log-prob": logps_K.new_zeros(len(batch.row_R)).index_add(0, row_K, logps_K)}, batch)
        return logps_K

    def _check_finite(self, values: Mapping[str, Tensor], batch: RowBatch) -> None:
        if wrong := non_finite(values, batch):
            raise UserError(f"{wrong} under the weights of {self.policy!r} as they are; expected a finite number")

    def check_kind(self, batch: Any, *kinds: str) -> None:
        """Raise UserError for a batch of other rows; without `kinds`, other than those that the method trains on."""
        given = batch.kind if isinstance(batch, RowBatch) else type(batch).__name__
        if given not in (kinds or self.kinds):
            expected, does = " or ".join(kinds or self.kinds), "measures" if kinds else "takes"
            raise UserError(
                f"{type(self).__name__} {does} batches of the kind {expected}, and is given {given}: give it a data "
                "module of such rows, or a loader that one has made"
            )

    # --- steps --------------------------------------------------------------------------------------------------------

    def training_step(self, batch: RowBatch, batch_idx: int) -> Tensor:
        self.check_kind(batch)
        return self._step(batch, "train")

    def validation_step(self, batch: RowBatch, batch_idx: int) -> Tensor:
        self.check_kind(batch)
        return self._step(batch, "validation")

    def test_step(self, batch: RowBatch, batch_idx: int) -> Tensor:
        self.check_kind(batch)
        return self._step(batch, "test")

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        raise NotImplementedError

    def predict_step(self, batch: RowBatch, batch_idx: int) -> dict[str, Tensor]:
        """`row` in the data and `row_figures` of each row, [R] each; no row of a batch that does not count."""
        found = {"row": batch.row_R, **self.row_figures(batch)}
        return found if batch.weight.rows > 0 else {name: values[:0] for name, values in found.items()}

    def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
        """Figures of each row under the weights as they are, by name, [R] each."""
        raise NotImplementedError

    def measured(
        self, batches: Iterable[RowBatch], measure: Callable[[RowBatch], Measured]
    ) -> Iterator[tuple[RowBatch, Measured]]:
        """Each batch, on the module's device, with what is measured of it, without gradient and dropout."""
        with evaluating(self.model), torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for batch in batches:
                self.check_kind(batch)
                moved: RowBatch = self.trainer.strategy.batch_to_device(batch, self.device)
                yield moved, measure(moved)

    def all_row_figures(self, stage: str) -> dict[str, Tensor]:
        """`row_figures` of all rows of a stage of the data module, in order; none if it has no such rows.

        Raises UserError for a value that is NaN or infinite.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        loader = None if data is None else data.ordered_loader(stage)
        if loader is None:
            return {}
        self._prepare_reference(stage)
        found: dict[str, Tensor] = {}
        for batch, figures in self.measured(loader, self.row_figures):
            self._check_finite(figures, batch)
            for name, value_R in figures.items():
                all_R = found.setdefault(name, torch.zeros(len(loader.dataset), device=self.device))
                all_R[batch.row_R] = value_R.float()
        return found

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        return with_schedule(optimizer, self.make_scheduler, self.trainer)

    def setup(self, stage: str) -> None:
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        if self.reference is not None:
            self.reference.setup()
        if self.trainer.is_global_zero:
            tell_precision(self)
            sharing, apart = sharing_obstacle(self.model), apart_obstacle(self.model)
            if self.compute.layout == "auto" and self.row_layout == "repeated":
                print(f"{sharing}: prompts are repeated before each completion", flush=True)
            if apart is not None:
                print(f"{apart}: sequences of unlike length run one after another", flush=True)

    def set_modes(self) -> None:
        """For training: dropout as the arguments say."""
        # from_pretrained returns eval mode and Lightning leaves it so; dropout is the user's decision, not an accident.
        self.model.train(self.dropout)
        train_adapter_dropout(self.model)

    def on_train_start(self) -> None:
        self.set_modes()
        follow_length(self.trainer)
        self._tokens_at_step = self.num_tokens
        self._random_state = torch.get_rng_state()
        go_on(self.trainer)
        for stage in ("train", "validation"):  # before the weights change
            self._prepare_reference(stage)

    def _prepare_reference(self, stage: str) -> None:
        if self.reference is not None:
            self.reference.prepare(stage)

    def on_validation_start(self) -> None:
        self._prepare_reference("validation")

    def on_test_start(self) -> None:
        self._prepare_reference("test")

    def on_predict_start(self) -> None:
        self._prepare_reference("predict")

    def on_train_end(self) -> None:
        torch.set_rng_state(self._random_state)  # weights and samples that are drawn later follow the run's seed

    # --- losses that are not finite -----------------------------------------------------------------------------------

    def watch(self, batch: RowBatch, values: Mapping[str, Tensor]) -> None:
        """Remember the values behind a batch's loss, one a row, to name one that is not finite."""
        self._watched = batch, {name: value.detach() for name, value in values.items()}

    def non_finite_values(self) -> str:
        """Which value of the last batch is NaN or infinite, and of which row; empty if all are finite."""
        return "" if self._watched is None else non_finite(self._watched[1], self._watched[0])

    def on_before_backward(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss.detach()).all()):
            raise UserError(
                f"the loss is {loss.item()}{_because(self.non_finite_values())}; expected a finite number. The weights "
                f"are still those of step {self.trainer.global_step}"
            )

    # --- what is logged -----------------------------------------------------------------------------------------------

    def count_figures(self, stage: Split, batch: RowBatch, figures: Mapping[str, Tensor]) -> None:
        """Add a batch's figures, [items] each, to those of its optimizer step, or of the validation."""
        counted = batch.weight.rows > 0
        self._counted(stage).update(figures, counted)
        if stage == "train":
            self._count_tokens(batch.trees.num_tokens if counted else 0)

    def logged_figures(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged, given means and extremes over all items; a method may add figures made from them."""
        return figures

    def _counted(self, stage: Split) -> Figures:
        metric = self.metrics[f"of_{stage}"]
        assert isinstance(metric, Figures)
        return metric

    def _log_figures(self, stage: Split) -> None:
        """Log what was counted since the last time, over all processes, and reset it."""
        counted = self._counted(stage)
        if not counted.update_called:
            return
        figures = self.logged_figures(counted.compute())
        counted.reset()
        # Equal on all processes by now, but Lightning wants epoch figures synchronized.
        shared = stage != "train"
        for name, value in figures.items():
            bar = not shared and name == "loss"
            self.log(f"{stage}/{name}", value, prog_bar=bar, sync_dist=shared, batch_size=1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._tokens_at_step = self.num_tokens
        self._log_figures("train")
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("train/grad_norm", nn.utils.get_total_norm(gradients))
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
        if self.reference is not None:
            self.reference.at_start = False

    def on_train_epoch_start(self) -> None:
        self._counted("train").reset()  # an interrupted step's

    def on_validation_epoch_start(self) -> None:
        self._counted("validation").reset()

    def on_validation_epoch_end(self) -> None:
        self._log_figures("validation")

    def on_test_epoch_start(self) -> None:
        self._counted("test").reset()

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Dropout depends only on a batch's place, so a resumed run draws what the uninterrupted one would.
        place = (self._noise_seed, self.trainer.global_rank, self.trainer.current_epoch, batch_idx)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))
        self._batch_tokens, self._batch_start = 0, time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        rate = self._batch_tokens / (time.perf_counter() - self._batch_start)
        self.log("train/tokens_per_second", rate, reduce_fx="sum", sync_dist=True)

    def _count_tokens(self, tokens: int) -> None:
        """Add a training batch's tokens, prompts counted once a completion, to what this rank has seen."""
        self.num_tokens += tokens
        self._batch_tokens += tokens
        # On every rank for every batch, since processes wait for each other here.
        self.log("train/num_tokens", float(self.num_tokens), reduce_fx="sum", sync_dist=True)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Plain values only, so that checkpoints load with weights_only=True. Export reads them.
        checkpoint["lit_pref"] = {
            "policy": self.policy,
            "num_tokens": self._tokens_of_all_ranks(),
            "noise_seed": self._noise_seed,
        }
        if self.reference is not None:
            checkpoint["lit_pref"]["start_fingerprint"] = self.reference.fingerprint
        if "loops" in checkpoint and self._trainer is not None:  # None: saved by a Trainer that never ran it
            checkpoint["lit_pref"] |= run_names(self)
            rewind(self.trainer, checkpoint["loops"]["fit_loop"])
        if self.adapter is not None:
            checkpoint["lit_pref"] |= {"adapter": asdict(self.adapter), "base_fingerprint": self.base_fingerprint}
            checkpoint["lit_pref"]["dtype"] = self.weights_dtype
            checkpoint["state_dict"] = self.trained(checkpoint["state_dict"])

    def _tokens_of_all_ranks(self) -> int:
        """Up to the last optimizer step. All ranks build a checkpoint's content, so all can be asked."""
        if self._trainer is None or self.trainer.world_size == 1:
            return self._tokens_at_step
        counted = torch.tensor(self._tokens_at_step, device=self.device)
        return int(self.trainer.strategy.reduce(counted, reduce_op="sum"))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            check_names(self, checkpoint, self.trainer.datamodule)  # type: ignore[attr-defined]
        check_adapter(self, checkpoint)
        if self.reference is not None:
            self.reference.load(checkpoint["lit_pref"])
        # Each rank counts its own, and figures are sums over ranks.
        self.num_tokens = int(checkpoint["lit_pref"]["num_tokens"]) if self.global_rank == 0 else 0
        self._noise_seed = int(checkpoint["lit_pref"].get("noise_seed", self._noise_seed))  # older ones have none

    def trained(self, state: dict[str, Any]) -> dict[str, Any]:
        """The part of a state dict that is not the frozen base: the adapter, and all that a method adds and trains."""
        base = {name for name, p in self.named_parameters(remove_duplicate=False) if not p.requires_grad}
        base |= {f"model.{name}" for name, _ in self.model.named_buffers(remove_duplicate=False)}
        return {name: value for name, value in state.items() if name not in base}


def non_finite(values: Mapping[str, Tensor], batch: RowBatch) -> str:
    """ "the score of chosen of pair 3 is nan", of the first value that is not finite; empty if there is none.

    values: by name, one a row of the batch.
    """
    for name, value_R in values.items():
        place_b = (~torch.isfinite(value_R)).nonzero()
        if len(place_b):
            place = int(place_b[0])
            return f"{name} of {batch.kind} {int(batch.row_R[place])} is {float(value_R[place])}"
    return ""


def _because(named: str) -> str:
    return f", because {named}" if named else ""
