"""What data modules of stored pairs share: pairs of files, tokenized once, their tokens on the disk.

Tokens are found by later runs and read as batches need them, so that memory grows by some bytes a pair.
"""

from pathlib import Path

import numpy as np

from lit_pref.data.batches.loading import PairCollate, TreeDataset
from lit_pref.data.formats.shares import held_out_rows
from lit_pref.data.tokens.cache import PairSource, token_store
from lit_pref.data.tokens.store import StoredTrees, TokenStore
from lit_pref.datamodules.trees import Stage, _TreeDataModule, tell_left_out
from lit_pref.errors import UserError
from lit_pref.storage.arrays import default_cache_folder
from lit_pref.types import Split


class _StoredPairsDataModule(_TreeDataModule):
    """A subclass's `_sources` says which pairs; without validation pairs a share of the training pairs is held out.

    validation_share: how much that is, in [0, 1), drawn by prompt with numpy from the seed.
    """

    def __init__(
        self,
        validation_share: float,
        batch_size: int,
        max_tokens_per_batch: int | None,
        seed: int | None,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, max_tokens_per_batch, seed, num_workers)
        if not 0 <= validation_share < 1:
            raise ValueError(f"validation_share must be in [0, 1), got {validation_share}")
        self.validation_share = validation_share
        self.prepare_data_per_node = False  # one cache folder for all
        self._stores: dict[Split, TokenStore] = {}  # from `prepare_data` to `setup`
        self._names: dict[Split, str] = {}  # of their sources, on the process that made them

    def _sources(self) -> dict[Split, PairSource]:
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Lightning calls this on the first process alone, while the others wait."""
        self._forget_other_consumer()
        if not self.data:
            self._stores = self._find_stores()

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if self.data:
            return
        stores = self._shared_stores()
        for split, store in stores.items():
            self._tell(split, store)
        if "validation" in stores:
            self._add("train", stores["train"].trees())
            self._add("validation", stores["validation"].trees())
            return
        store = stores["train"]
        assert self.trainer is not None
        held_out = held_out_rows(store.prompts(), self.validation_share, self.seed)
        if self.validation_share and len(store) > len(held_out) == 0 and self.trainer.is_global_zero:
            print("validation: the pairs have one prompt, so none is held out and nothing is measured", flush=True)
        # In the order of the store: the sampler shuffles, and neighbours on the disk are found together.
        self._add("train", store.trees(np.setdiff1d(np.arange(len(store), dtype=np.int32), held_out)))
        if len(held_out):
            self._add("validation", store.trees(held_out))

    def _find_stores(self) -> dict[Split, TokenStore]:
        quiet = self.trainer is not None and not self.trainer.is_global_zero
        sources = self._sources()
        self._names = {split: source.source for split, source in sources.items()}
        return {
            split: token_store(source, self.consumer.tokenizer, default_cache_folder(), quiet)
            for split, source in sources.items()
        }

    def _shared_stores(self) -> dict[Split, TokenStore]:
        """The first process's stores; a process that does not see its folders, on another machine, makes its own."""
        assert self.trainer is not None
        stores, self._stores = self._stores, {}
        if self.trainer.world_size == 1:
            return stores or self._find_stores()
        if self.trainer.is_global_zero and not stores:
            stores = self._find_stores()
        folders = self.trainer.strategy.broadcast({split: store.folder for split, store in stores.items()})
        if stores:
            return stores
        if not all(folder.is_dir() for folder in folders.values()):
            return self._find_stores()
        return {split: TokenStore(folder) for split, folder in folders.items()}

    def _tell(self, split: Split, store: TokenStore) -> None:
        """Print what was left out or cut, and write the rows that were no pairs into the run folder."""
        if self.trainer is None or not self.trainer.is_global_zero:
            return
        folder = Path(self.trainer.default_root_dir)
        tell_left_out(self._names[split], split, store.records, store.skipped, folder)
        if len(store.counts) > 1:
            print(f"{split}: {len(store):,} pairs, {store.counts}", flush=True)

    def _add(self, stage: Stage, trees: StoredTrees) -> None:
        if not trees:
            source = self._names.get("validation" if stage == "validation" else "train") or self._names.get(
                "train", "the data"
            )
            first = "".join(f"; the first: {message}" for message in trees.store.skipped["first_messages"][:1])
            raise UserError(f"no pair of {source} is left to train on or to validate with: {trees.store.counts}{first}")
        self._check_vocabulary(trees.store.largest_id)
        collate = PairCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout, trees.margins)
        self.data[stage] = TreeDataset(trees, collate)
        self.fingerprints[stage] = trees.fingerprint
