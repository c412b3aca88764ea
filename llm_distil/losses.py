"""Divergences of two models' logits, teacher first."""

from distil.sequence_losses import (
    generalized_jsd_loss,
    sequence_kl_divergence,
    sequence_reverse_kl_divergence,
)

__all__ = ["generalized_jsd_loss", "sequence_kl_divergence", "sequence_reverse_kl_divergence"]
