"""The three classes that train: one objective each."""

from __future__ import annotations

from distil.api.base import BaseDistillation


class KnowledgeDistillation(BaseDistillation):
    """(1 - alpha) CE + alpha T^2 KL(teacher || student): the student covers all that the teacher would say.

    alpha is ``kd_loss_weight``, T ``temperature``; CE and KL are means over scored tokens, in nats. Hinton et
    al. 2015, arXiv 1503.02531, section 2. Arguments and errors as in ``BaseDistillation``.
    """

    method = "kd"


class ReverseKnowledgeDistillation(BaseDistillation):
    """(1 - alpha) CE + alpha T^2 KL(student || teacher): the student says only what the teacher would say.

    alpha is ``kd_loss_weight``, T ``temperature``; CE and KL are means over scored tokens, in nats. Wants a
    student that already speaks, and a temperature near 1. Gu et al. 2023, arXiv 2306.08543, section 2.
    Arguments and errors as in ``BaseDistillation``.
    """

    method = "revkd"


class GeneralizedKnowledgeDistillation(BaseDistillation):
    """lambda JSD on the data set + (1 - lambda) JSD on the student's own sequences, both in every step.

    lambda is ``lambda_gkd``; JSD(P, Q) = 1/2 KL(P || M) + 1/2 KL(Q || M) with M = (P + Q) / 2, a mean over
    scored tokens, in nats; no cross-entropy. The student samples up to ``max_new_tokens`` from the prompts
    (``prompt_input_ids``) of every row. Agarwal et al. 2023, arXiv 2306.13649, section 3, which counts its
    lambda the other way round. Arguments and errors as in ``BaseDistillation``.
    """

    method = "gkd"
