"""One distillation step, written by us, naively and by others: what benchmarks/step.py measures.

Each row is a function of the same models and batch, and of an objective; it leaves the student's gradients
and gives back the loss.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import kl_div

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.engine.forward import Forward, scored_and_targets
from distil.head import score
from distil.losses import Term, cross_entropy
from distil.types import IGNORE_INDEX, REFERENCE

SIZES = {"32k": (32_000, 8), "152k": (151_936, 4)}
"""Vocabulary and sequences."""
LENGTH, PROMPT, CHUNK = 256, 64, 256
CE_KL = "CE + KL at T=2"
OBJECTIVES: dict[str, tuple[Term, ...]] = {
    "KL": (Term(1.0, REFERENCE, forward_kl),),
    "reverse KL": (Term(1.0, REFERENCE, reverse_kl),),
    "JSD": (Term(1.0, REFERENCE, GeneralizedJSD(0.5)),),
    CE_KL: (Term(0.5, REFERENCE, cross_entropy), Term(2.0, REFERENCE, forward_kl, 2.0)),
}
BETAS = {"KL": 0.0, "reverse KL": 1.0, "JSD": 0.5, CE_KL: 0.0}
"""What TRL and Liger call each: their ends are the two KLs."""


@dataclass
class Bench:
    """The models and the batch that every row shares."""

    teacher: Any
    student: Any
    ids_BT: Tensor
    labels_BT: Tensor

    @property
    def count(self) -> int:
        """Scored tokens."""
        return int((self.labels_BT[:, 1:] != IGNORE_INDEX).sum())

    def bodies(self) -> tuple[Tensor, Tensor]:
        """Hidden states of the student (with a graph) and the teacher, all positions."""
        with torch.no_grad():
            taught = self.teacher.model(input_ids=self.ids_BT).last_hidden_state
        return self.student.model(input_ids=self.ids_BT).last_hidden_state, taught


def build(vocabulary: int, rows: int, device: str) -> Bench:
    """Random models; weights of some size, so that the two distributions differ as real ones do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def model(width: int, seed: int) -> Any:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            initializer_range=0.1,
        )
        return LlamaForCausalLM(config).to(device)

    ids_BT = torch.randint(vocabulary, (rows, LENGTH), device=device)
    labels_BT = ids_BT.clone()
    labels_BT[:, :PROMPT] = IGNORE_INDEX
    return Bench(model(256, 0).eval().requires_grad_(False), model(128, 1), ids_BT, labels_BT)


def floor(bench: Bench, _objective: str) -> Tensor:
    """Both bodies, each head multiplied once over scored positions, the student's gradients; in chunks."""
    scored_BT, _ = scored_and_targets(bench.labels_BT)
    student_BTH, teacher_BTH = bench.bodies()
    student_NH, teacher_NH = student_BTH[scored_BT], teacher_BTH[scored_BT]
    weight, taught = bench.student.lm_head.weight, bench.teacher.lm_head.weight
    with torch.no_grad():
        slope_NH, slope_VH = torch.empty_like(student_NH), torch.zeros_like(weight)
        s, t = (student_NH.new_empty(CHUNK, len(weight)) for _ in range(2))
        for start in range(0, len(student_NH), CHUNK):
            rows = slice(start, start + CHUNK)
            n = len(student_NH[rows])
            torch.mm(student_NH[rows], weight.T, out=s[:n])
            torch.mm(teacher_NH[rows], taught.T, out=t[:n])
            torch.mm(s[:n], weight, out=slope_NH[rows])
            slope_VH.addmm_(s[:n].T, student_NH[rows])
        weight.grad = slope_VH
    student_NH.backward(slope_NH)
    return torch.zeros(())


def ours(bench: Bench, objective: str) -> Tensor:
    """What the trainer does in a step."""
    scored_BT, targets_N = scored_and_targets(bench.labels_BT)
    mask_BT = torch.ones_like(bench.ids_BT)
    with torch.no_grad():
        teacher = Forward(bench.teacher)(bench.ids_BT, mask_BT, scored_BT)
    student = Forward(bench.student)(bench.ids_BT, mask_BT, scored_BT)
    vocabulary = bench.student.config.vocab_size
    loss, _ = score(student, targets_N, OBJECTIVES[objective], teacher, vocabulary)
    loss = loss / len(targets_N)
    loss.backward()
    return loss.detach()


def _whole_logits(bench: Bench) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        teacher_BTV = bench.teacher(input_ids=bench.ids_BT).logits
    return bench.student(input_ids=bench.ids_BT).logits, teacher_BTV


def naive(bench: Bench, objective: str) -> Tensor:
    """Whole logits, log_softmax, the formula, autograd."""
    student_BTV, teacher_BTV = _whole_logits(bench)
    kept_BT, targets_N = scored_and_targets(bench.labels_BT)
    student_NV, teacher_NV = student_BTV[kept_BT], teacher_BTV[kept_BT]
    T = 2.0 if objective == CE_KL else 1.0
    q, p = (student_NV / T).log_softmax(-1), (teacher_NV / T).log_softmax(-1)
    if objective == "JSD":
        m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
        loss = 0.5 * (kl_div(m, p, log_target=True, reduction="sum"))
        loss = loss + 0.5 * kl_div(m, q, log_target=True, reduction="sum")
    elif objective == "reverse KL":
        loss = kl_div(p, q, log_target=True, reduction="sum")
    else:
        loss = kl_div(q, p, log_target=True, reduction="sum")
    if objective == CE_KL:
        loss = 2.0 * loss + 0.5 * torch_cross_entropy(student_NV, targets_N, reduction="sum")
    loss = loss / bench.count
    loss.backward()
    return loss.detach()


def trl_gkd(bench: Bench, objective: str) -> Tensor:
    """The loss of TRL's GKDTrainer."""
    from trl.experimental.gkd import GKDTrainer

    student_BTV, teacher_BTV = _whole_logits(bench)
    loss = GKDTrainer.generalized_jsd_loss(
        student_BTV[:, PROMPT - 1 : -1],
        teacher_BTV[:, PROMPT - 1 : -1],
        bench.labels_BT[:, PROMPT:],
        beta=BETAS[objective],
        num_items_in_batch=bench.count,
    )
    loss.backward()
    return loss.detach()


def trl_chunked(bench: Bench, objective: str) -> Tensor:
    """The loss of TRL's DistillationTrainer."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    student_BTH, teacher_BTH = bench.bodies()
    loss, _, _ = _chunked_divergence_loss(
        student_BTH[:, PROMPT - 1 : -1],
        teacher_BTH[:, PROMPT - 1 : -1],
        bench.student.lm_head.weight,
        bench.teacher.lm_head.weight,
        (bench.labels_BT[:, PROMPT:] != IGNORE_INDEX).long(),
        BETAS[objective],
        bench.count,
    )
    loss.backward()
    return loss.detach()


def liger(bench: Bench, objective: str) -> Tensor:
    """Liger's fused linear JSD, without a compiler."""
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss

    both = objective == CE_KL
    head = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.5 if both else 0.0,
        weight_soft_loss=2.0 if both else 1.0,
        beta=BETAS[objective],
        temperature=2.0 if both else 1.0,
        compiled=False,
    )
    student_BTH, teacher_BTH = bench.bodies()
    loss = head(
        student_BTH[:, PROMPT - 1 : -1].flatten(0, 1),
        bench.student.lm_head.weight,
        teacher_BTH[:, PROMPT - 1 : -1].flatten(0, 1),
        bench.teacher.lm_head.weight,
        bench.labels_BT[:, PROMPT:].flatten(),
    )
    loss.backward()
    return loss.detach()


Row = Callable[[Bench, str], Tensor]
ROWS: dict[str, tuple[Row, str]] = {
    "floor": (floor, ""),
    "ours": (ours, ""),
    "whole logits": (naive, ""),
    "TRL GKD loss": (trl_gkd, "trl"),
    "TRL chunked divergence": (trl_chunked, "trl"),
    "Liger fused linear JSD": (liger, "liger_kernel"),
}
"""Each with the package that it needs."""
