"""Passing samples to imitate: SFT on what the policy itself solves (RFT), the likelihood arm of arXiv 2410.18585.

On the very samples that `execution.py` makes pairs of, and validated and tested on the same pairs.
"""

from dataclasses import replace

from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules.execution import _ExecutionDataModule
from lit_pref.errors import UserError
from lit_pref.sampling import passing_demonstrations
from lit_pref.types import Split


class PassingSamplesDataModule(_ExecutionDataModule):
    """The distinct passing completions of each problem, to imitate."""

    def _add(self, split: Split) -> None:
        if split != "train":
            self._add_pairs(split)
            return
        demonstrations = passing_demonstrations(self._graded(split).samples)
        if not demonstrations:
            raise UserError(
                f"no sample of {self.sizes[split]} problems passed: raise samples.each or train_size, or take a "
                "policy that solves some of them"
            )
        if not self.own_tokens:
            demonstrations = [replace(each, completion_ids=None) for each in demonstrations]
        tokenized = tokenize(demonstrations, self.module.tokenizer)
        self._keep_counted(split, "demonstration", tokenized, {"passing samples": len(demonstrations)})
