"""Lightning's terminal, without what it says in every run."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Said in every run, and nothing that a user could or should change.
_IDLE_WARNINGS = (
    "`isinstance.treespec, LeafSpec.` is deprecated",  # between Lightning and a newer torch
    ".*does not have many workers",  # batches are put together from token ids in memory: workers would only copy them
    ".*module.s. in eval mode",  # dropout is off unless the module's argument says otherwise
    "Total length of `list` across ranks is zero",  # no validation data was given
    "You are trying to `self.log.*barebones",  # nothing is logged there, as was asked for
    "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own folder
    "Couldn't infer the batch indices",  # predictions carry their own row numbers
    "LightningCLI's args parameter is intended",  # they are those of the command line, with configurations' paths
    "The dirpath has changed from",  # a checkpoint that is validated stays where it is
)
_IDLE_MESSAGES = re.compile(
    # In the resolved configuration and the run record.
    "Seed set to|[GT]PU available|LOCAL_RANK|`Trainer.*was configured so|`Trainer.fit` stopped: `max_epochs|"
    # Said again when it is done, or by ourselves with the way to go on.
    r"Restoring states from|An \w+ was raised with message|Loading `train_dataloader`|Detected KeyboardInterrupt|"
    "KeyboardInterrupt was raised|"
    # Advertisement.
    "Tip: "
)
_TALKATIVE = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without what Lightning says in every run; what a user can act on is said as before."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    with warnings.catch_warnings():
        for message in _IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.addFilter(_is_news)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not _IDLE_MESSAGES.search(record.getMessage())
