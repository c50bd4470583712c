"""What data modules of stored pairs share: pairs of files, tokenized once, their tokens on the disk.

Tokens are found by later runs and read as batches need them, so that memory grows by some bytes a pair.
"""

from collections.abc import Mapping
from pathlib import Path

from lit_pref.data.formats.shares import check_share, rows_of_splits
from lit_pref.data.tokens.cache import PairSource, token_store
from lit_pref.data.tokens.store import TokenStore
from lit_pref.datamodules.files import NamedSource
from lit_pref.datamodules.telling import tell_left_out
from lit_pref.datamodules.trees import Loading, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.storage.arrays import default_cache_folder
from lit_pref.types import Split


class _StoredPairsDataModule(_TreeDataModule):
    """A subclass's `_source` says which pairs; validation and test pairs without a source are held out of training's.

    named: the splits that have a source of their own.
    validation_size, test_size: how many are held out otherwise, as a share in [0, 1) or a count, whole prompts drawn
        with numpy from the seed.
    """

    def __init__(
        self,
        named: Mapping[Split, NamedSource],
        validation_size: int | float,
        test_size: int | float,
        policy: str | None,
        batch_size: int,
        loading: Loading,
        seed: int | None,
    ) -> None:
        super().__init__(policy, batch_size, loading, seed)
        self.named = named
        self.sizes: dict[Split, int | float] = {"validation": validation_size, "test": test_size}
        for split, size in self.sizes.items():
            check_share(split, size)
        self.prepare_data_per_node = False  # one cache folder for all
        self._prepared: dict[Split, TokenStore] = {}  # on the first process, until `setup` shares them
        self._stores: dict[Split, TokenStore] = {}

    def _source(self, split: Split) -> PairSource:
        raise NotImplementedError

    def splits(self) -> list[Split]:
        return ["train", *(split for split, size in self.sizes.items() if split in self.named or size)]

    def forget_other_module(self) -> None:
        if self._made_for is not self.module:
            self._stores.clear()
        super().forget_other_module()

    def prepare_data(self) -> None:
        """Lightning calls this only on the first process, while the others wait."""
        self.forget_other_module()
        for split in self.needed(self.stage):
            owner = self._owner(split)
            if split not in self.data and owner not in self._stores and owner not in self._prepared:
                self._prepared[owner] = self._find(owner)

    def _owner(self, split: Split) -> Split:
        """The split whose source holds a split's pairs."""
        return split if split in self.named else "train"

    def _find(self, owner: Split) -> TokenStore:
        return token_store(self._source(owner), self.module.tokenizer, default_cache_folder(), quiet=not self.first)

    def _store(self, owner: Split) -> TokenStore:
        """The first process's store; a process that does not see its folder, on another machine, makes its own."""
        if owner not in self._stores:
            store = self._prepared.pop(owner, None)
            if self.first or self.world_size == 1:
                store = store or self._find(owner)
            if self.world_size > 1:
                assert self.trainer is not None
                folder = self.trainer.strategy.broadcast(Path() if store is None else store.folder)
                store = store or (TokenStore(folder) if folder.is_dir() else self._find(owner))
            assert store is not None
            self._stores[owner] = store
            self._tell(owner, store)
        return self._stores[owner]

    def _add(self, split: Split) -> None:
        owner = self._owner(split)
        store = self._store(owner)
        held_out = {each: size for each, size in self.sizes.items() if each not in self.named}
        rows = rows_of_splits(store.prompts(), held_out, self.seed)[split] if owner == "train" else None
        if rows is not None and not len(rows) and split != "train" and len(store):
            if split == "test":
                raise UserError("no test data: the pairs have too few prompts to hold any out; give data.test")
            if self.first and split not in self.counts:
                print("validation: the pairs have one prompt, so none is held out and nothing is measured", flush=True)
            self.counts[split] = {}
            return
        # In the order of the store: the sampler shuffles, and neighbours on the disk are found together.
        trees = store.trees(rows)
        if not trees:
            first = "".join(f"; the first: {message}" for message in store.skipped["first_messages"][:1])
            source = self._source(owner).source
            raise UserError(f"no pair of {source} is left to train on or to validate with: {store.counts}{first}")
        self._check_vocabulary(store.largest_id)
        self._keep(split, "pair", trees, trees.values, store.counts)

    def _tell(self, owner: Split, store: TokenStore) -> None:
        """Print what was left out or cut, and write the rows that were no pairs into the run folder."""
        if not self.first:
            return
        folder = None if self.trainer is None else Path(self.trainer.default_root_dir)
        tell_left_out(self._source(owner).source, owner, store.records, store.skipped, folder)
        if len(store.counts) > 1:
            print(f"{owner}: {len(store):,} pairs, {store.counts}", flush=True)
