"""The LightningModules: one a method."""

from lit_pref.models.compute import Compute
from lit_pref.modules.dpo import DPOModule
from lit_pref.modules.kto import KTOModule
from lit_pref.modules.optimization import adamw
from lit_pref.modules.pmp import PMPretrainModule
from lit_pref.modules.reward import RewardFinetuneModule
from lit_pref.modules.schedules import WarmupCosine, WarmupStableDecay
from lit_pref.modules.sft import SFTModule

__all__ = [
    "Compute",
    "DPOModule",
    "KTOModule",
    "PMPretrainModule",
    "RewardFinetuneModule",
    "SFTModule",
    "WarmupCosine",
    "WarmupStableDecay",
    "adamw",
]
