"""Scores of models and of their texts."""

from distil.api.perplexity import compute_perplexity
from distil.api.tracker import MetricTracker
from distil.metrics.bleu import compute_bleu
from distil.metrics.rouge import compute_rouge

__all__ = ["MetricTracker", "compute_bleu", "compute_perplexity", "compute_rouge"]
