"""What runs beside training: evaluation before and after, the run record, loggers, progress, a stop at NaN."""

from lit_pref.callbacks.before_after import BeforeAfter
from lit_pref.callbacks.checkpoint_io import CheckedCheckpointIO
from lit_pref.callbacks.finite_loss import FiniteLoss
from lit_pref.callbacks.geometric_checkpoints import DecayFromCheckpoint, GeometricCheckpoints
from lit_pref.callbacks.last_checkpoint import LastCheckpoint
from lit_pref.callbacks.loggers import RunWandbLogger, run_loggers
from lit_pref.callbacks.metrics_csv import MetricsCSV
from lit_pref.callbacks.predictions import PredictionsFile
from lit_pref.callbacks.progress import TrainingProgress
from lit_pref.callbacks.run_record import CountsTokens, HasFingerprints, RunRecord

__all__ = [
    "BeforeAfter",
    "CheckedCheckpointIO",
    "CountsTokens",
    "DecayFromCheckpoint",
    "FiniteLoss",
    "GeometricCheckpoints",
    "HasFingerprints",
    "LastCheckpoint",
    "MetricsCSV",
    "PredictionsFile",
    "RunRecord",
    "RunWandbLogger",
    "TrainingProgress",
    "run_loggers",
]
