"""Distil a large language model into a small one: the public names of distil-runner.

Importing this package imports nothing else; each name brings what it needs when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.api.base import BaseDistillation as BaseDistillation
    from distil.api.config import DistillationConfig as DistillationConfig
    from distil.api.distillation import GeneralizedKnowledgeDistillation as GeneralizedKnowledgeDistillation
    from distil.api.distillation import KnowledgeDistillation as KnowledgeDistillation
    from distil.api.distillation import ReverseKnowledgeDistillation as ReverseKnowledgeDistillation
    from distil.api.errors import ArgumentError as ArgumentError
    from distil.api.version import __version__ as __version__
    from distil.types import RunFailed as RunFailed
    from llm_distil import losses as losses
    from llm_distil import metrics as metrics
    from llm_distil import utils as utils
    from llm_distil.losses import generalized_jsd_loss as generalized_jsd_loss
    from llm_distil.losses import sequence_kl_divergence as sequence_kl_divergence
    from llm_distil.losses import sequence_reverse_kl_divergence as sequence_reverse_kl_divergence
    from llm_distil.metrics import MetricTracker as MetricTracker
    from llm_distil.metrics import compute_bleu as compute_bleu
    from llm_distil.metrics import compute_perplexity as compute_perplexity
    from llm_distil.metrics import compute_rouge as compute_rouge
    from llm_distil.utils import get_tokenizer as get_tokenizer
    from llm_distil.utils import get_vocab_size as get_vocab_size

__all__ = [
    "ArgumentError",
    "BaseDistillation",
    "DistillationConfig",
    "GeneralizedKnowledgeDistillation",
    "KnowledgeDistillation",
    "MetricTracker",
    "ReverseKnowledgeDistillation",
    "RunFailed",
    "__version__",
    "compute_bleu",
    "compute_perplexity",
    "compute_rouge",
    "generalized_jsd_loss",
    "get_tokenizer",
    "get_vocab_size",
    "losses",
    "metrics",
    "sequence_kl_divergence",
    "sequence_reverse_kl_divergence",
    "utils",
]

_HOMES = {
    "distil.api.base": ("BaseDistillation",),
    "distil.api.config": ("DistillationConfig",),
    "distil.api.distillation": (
        "GeneralizedKnowledgeDistillation",
        "KnowledgeDistillation",
        "ReverseKnowledgeDistillation",
    ),
    "distil.api.errors": ("ArgumentError",),
    "distil.api.version": ("__version__",),
    "distil.types": ("RunFailed",),
    "llm_distil.losses": (
        "generalized_jsd_loss",
        "sequence_kl_divergence",
        "sequence_reverse_kl_divergence",
    ),
    "llm_distil.metrics": ("MetricTracker", "compute_bleu", "compute_perplexity", "compute_rouge"),
    "llm_distil.utils": ("get_tokenizer", "get_vocab_size"),
}
_MODULES = ("losses", "metrics", "utils")


if not TYPE_CHECKING:  # or every misspelt name would type

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"llm_distil.{name}")
        for home, names in _HOMES.items():
            if name in names:
                return globals().setdefault(name, getattr(import_module(home), name))
        raise AttributeError(f"module 'llm_distil' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
