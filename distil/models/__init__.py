"""Models: where they come from, whether they fit together, loading and pruning them.

Importing this package imports neither torch nor transformers: both load inside the functions that need them.
"""

from distil.models.check import check_models, check_quantized
from distil.models.load import (
    LoadedStudent,
    load_skeleton,
    load_student,
    load_teacher,
    needs_calibration,
)
from distil.models.pruning import CALIBRATION_ROWS, block_influence, choose_layers, prune_layers
from distil.models.tokenizers import load_tokenizer, shared_vocabulary

__all__ = [
    "CALIBRATION_ROWS",
    "LoadedStudent",
    "block_influence",
    "check_models",
    "check_quantized",
    "choose_layers",
    "load_skeleton",
    "load_student",
    "load_teacher",
    "load_tokenizer",
    "needs_calibration",
    "prune_layers",
    "shared_vocabulary",
]
