"""What each verb of the command line takes: one dataclass a verb, whose docstrings are its help.

The order is that of the data: text, model, finetuning, use. `--config FILE.toml` fills the same classes.
"""

from pellucid.options.base import Options, Quickstart
from pellucid.options.finetuning import FinetuneClassify, FinetuneInstruct, FinetunePrefer, Finetuning
from pellucid.options.fitting import Fitting, WrittenRun
from pellucid.options.model import Evaluate, Export, Generate, Import, Plan, Pretrain, Quantize, Training
from pellucid.options.text import Doctor, Encode, TokenizerExport, TokenizerReport, TokenizerShow, TokenizerTrain
from pellucid.options.use import Chat, Classify, Compare, Report, See, Serve

__all__ = [
    "Chat",
    "Classify",
    "Compare",
    "Doctor",
    "Encode",
    "Evaluate",
    "Export",
    "FinetuneClassify",
    "FinetuneInstruct",
    "FinetunePrefer",
    "Finetuning",
    "Fitting",
    "Generate",
    "Import",
    "Options",
    "Plan",
    "Pretrain",
    "Quantize",
    "Quickstart",
    "Report",
    "See",
    "Serve",
    "TokenizerExport",
    "TokenizerReport",
    "TokenizerShow",
    "TokenizerTrain",
    "Training",
    "WrittenRun",
]
