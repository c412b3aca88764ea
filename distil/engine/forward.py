"""From token ids to the hidden states of scored positions: the (B, T, V) logits of a batch are never made.

The *wrapped* model is called (so that data-parallel and adapter hooks run) with ``logits_to_keep=1``, and a
hook keeps what its body puts out. Where a model has no plain output head, its logits are taken as they come
(the plain road): same numbers, more memory.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from distil.engine.anatomy import innermost, plain_head, positions, virtual_logits, virtual_tokens
from distil.engine.modes import eval_mode
from distil.engine.packing import Packed, rounded, widest
from distil.head import Dense, Head
from distil.types import IGNORE_INDEX

logger = logging.getLogger(__name__)

_said: WeakSet[nn.Module] = WeakSet()
"""Models whose plain road was told: training and every evaluation have a Forward of their own."""

LOUD = 256
"""How much louder a body is made to see what a model does after it: a soft cap at 30 leaves the small logits
of a fresh model as they are, and bends them once it is trained. A power of two: no digit is lost."""


def scored_and_targets(labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions predict a scored token, and those tokens.

    Position t is scored where label t + 1 is not IGNORE_INDEX: the one shift of the project.
    Returns ``scored_BT`` (bool, last column false) and ``targets_N`` in the order ``hidden_BTH[scored_BT]``
    has.
    """
    scored_BT = torch.zeros_like(labels_BT, dtype=torch.bool)
    scored_BT[:, :-1] = labels_BT[:, 1:] != IGNORE_INDEX
    return scored_BT, labels_BT[:, 1:][scored_BT[:, :-1]]


class Forward:
    """Runs one model over batches and gives back what predicts the scored tokens.

    ``model`` may be wrapped (DDP, accelerate): ``inner`` is the model itself, plain or PEFT's, whose body is
    watched. Before the first batch a few tokens show whether head and hidden states give the model's own
    logits; if not, the plain road is taken. The positions of a learnt prompt are cut off; behind one,
    rows must be padded on the right. ``packing``: rows are laid end to end; the model must be one that
    ``check_packable`` lets through.
    """

    def __init__(self, model: nn.Module, inner: nn.Module | None = None, packing: bool = False) -> None:
        self.model = model
        self.packing = packing
        self.inner = model if inner is None else inner
        causal = innermost(self.inner)
        accepted = inspect.signature(causal.forward).parameters
        self._virtual = virtual_tokens(self.inner)
        self._cut = virtual_logits(self.inner)
        # PEFT counts them itself, and for prompts in the embeddings drops ours.
        self._accepts_positions = "position_ids" in accepted and not self._virtual
        body = getattr(causal, "base_model", None)
        self._body = body if isinstance(body, nn.Module) and body is not causal else None
        keeps = "logits_to_keep" in accepted and self._body is not None and plain_head(self.inner) is not None
        self._fused = keeps
        self._checked = False
        self._tries = 0

    def __call__(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, scored_BT: Tensor) -> Dense:
        """Hidden states (or, on the plain road, logits) at the positions of ``scored_BT``, and their head."""
        inputs: dict[str, Any] = {"use_cache": False}
        if self.packing:
            layout = Packed.of(attention_mask_BT, widest(self.inner))
            inputs["input_ids"] = layout.pack(input_ids_BT)
            inputs["position_ids"] = layout.pack(positions(attention_mask_BT))
            scored_N = layout.slots_BT[scored_BT]
        else:
            inputs |= self._padded(input_ids_BT, attention_mask_BT)
            scored_N = scored_BT.flatten().nonzero().squeeze(-1)
        if self._fused and not self._checked:
            self._check(input_ids_BT.device)
        if self._fused:
            (hidden_BTH,), _ = self._watched(inputs)
            head = plain_head(self.inner)
            assert head is not None
            return Dense(hidden_BTH[:, self._cut :].flatten(0, 1)[scored_N], head)
        logits_BTV = self.model(**inputs).logits[:, self._cut :]
        return Dense(logits_BTV.flatten(0, 1)[scored_N], Head(None))

    def _padded(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT}
        if self._accepts_positions:
            inputs["position_ids"] = positions(attention_mask_BT)
        elif self._virtual and not bool(attention_mask_BT[:, 0].all()):
            raise ValueError("Rows behind a learnt prompt must be padded on the right.")
        return inputs

    def _watched(self, inputs: dict[str, Any], times: int = 1) -> tuple[list[Tensor], Tensor]:
        """What the body puts out, ``times`` as loud, and the logits of the last position that come of it.

        Some models call past the body's own forward (OPT): nothing is kept then.
        """
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            kept.append(output[0])
            if times == 1:
                return output
            kept[0] = times * kept[0]
            if isinstance(output, tuple):
                return (kept[0], *output[1:])
            output["last_hidden_state"] = kept[0]
            return output

        assert self._body is not None
        handle = self._body.register_forward_hook(keep)
        try:
            return kept, self.model(**inputs, logits_to_keep=1).logits[:, -1]
        finally:
            handle.remove()

    @torch.no_grad()
    def _check(self, device: torch.device) -> None:
        """Take the plain road where the head that we know is not all that the model does after its body.

        Of tokens that are the same in all processes: with models in parts, each of them must go the same way.
        """
        size = innermost(self.inner).config.get_text_config().vocab_size
        ids_1T = (torch.arange(1, 5, device=device)[None] * size // 5 + self._tries) % size
        inputs = {"use_cache": False} | self._padded(ids_1T, torch.ones_like(ids_1T))
        alike = []
        with eval_mode(self.model):
            # What is added to logits shows beside quiet ones alone, and a loud body may overflow float16.
            for times in (LOUD, 1):
                kept, logits_1V = self._watched(inputs, times)
                head = plain_head(self.inner)
                alike.append(bool(kept) and head is not None and _gives(head, kept[0][:, -1], logits_1V))
        self._checked = bool(logits_1V.isfinite().any())  # else these tokens tell nothing: others may
        self._tries += 1
        self._fused = all(alike)
        if not self._fused:
            _say_plain(innermost(self.inner))


def _say_plain(causal: nn.Module) -> None:
    if causal not in _said:
        _said.add(causal)
        logger.warning(
            "The output head of %s is not a plain matrix product: its full logits are used "
            "(same numbers, more memory).",
            type(causal).__name__,
        )


@torch.no_grad()
def _gives(head: Head, hidden_BH: Tensor, logits_BV: Tensor) -> bool:
    if head.weight_VH is None or hidden_BH.shape[-1] != head.weight_VH.shape[-1]:
        return False
    ours, theirs = head.logits(hidden_BH), logits_BV.float()
    numbers = theirs.isfinite()
    if not bool(numbers.any()):
        return True  # they tell nothing of the head; the loss will be no number either, and says so
    # Half precision (or autocast) rounds the model's own logits; a head of another kind is off by far more.
    loose = rounded(logits_BV) or torch.is_autocast_enabled(logits_BV.device.type)
    tolerance = 5e-2 if loose else 1e-4
    ours, theirs = ours[numbers], theirs[numbers]
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
