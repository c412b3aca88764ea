"""Rows of a batch laid end to end, so that no model computes padding.

Rows share a line of the packed batch, each with positions from 0; a model that was given no mask reads from
them where a row begins, and lets none look at another. Whether it does is asked of the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace
from typing import cast

import torch
from torch import Tensor, nn

from distil.engine.anatomy import innermost, positions, trained_length, virtual_tokens
from distil.engine.modes import eval_mode
from distil.types import InputError

STRETCH = 1.5
"""How much wider than the longest row a line may be: less is left empty, but attention looks further."""


@dataclass(frozen=True)
class Lines:
    """Rows shared out to ``count`` lines: to each row its line and its place there."""

    count: int
    width: int
    places: list[tuple[int, int]]

    @property
    def area(self) -> int:
        """Tokens that a model computes, empty ones too."""
        return self.count * self.width

    def starts(self) -> list[int]:
        """Where each row begins in the lines laid flat."""
        return [line * self.width + place for line, place in self.places]


def _lines(lengths: Sequence[int], count: int) -> Lines:
    """Longest rows first, each to the line that holds least (Graham's LPT)."""
    used = [(0, line) for line in range(count)]
    places = [(0, 0)] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        taken, line = used[0]
        places[row] = (line, taken)
        heapreplace(used, (taken + lengths[row], line))
    return Lines(count, max(used)[0], places)


@dataclass(frozen=True, eq=False)
class Packed:
    """Where the tokens of a padded batch (B, T) stand in a packed one (R, W)."""

    rows: int
    width: int
    slots_BT: Tensor
    """Place of each token in (R, W) laid flat; of padding, none that counts."""
    mask_BT: Tensor
    """bool."""

    @classmethod
    def of(cls, mask_BT: Tensor, widest: int | None = None) -> Packed:
        """The lines that leave least empty, none wider than ``widest`` (but for a longer row); 0: one line.

        None: as wide as ``STRETCH`` allows.
        """
        lengths = mask_BT.sum(-1).tolist()
        longest = max(lengths)
        most = max(longest, min(int(STRETCH * longest), widest or longest * len(lengths)))
        best: Lines | None = _lines(lengths, 1) if widest == 0 else None
        for count in range(1, len(lengths) + 1):
            if widest == 0 or (best is not None and count * longest >= best.area):
                break
            lines = _lines(lengths, count)
            if lines.width <= most and (best is None or lines.area < best.area):
                best = lines
        assert best is not None, "a line for each row is always allowed"
        starts_B1 = torch.tensor(best.starts(), device=mask_BT.device)[:, None]
        return cls(best.count, best.width, starts_B1 + positions(mask_BT), mask_BT.bool())

    def pack(self, x_BT: Tensor) -> Tensor:
        """(R, W). What no row fills is 0: as a position, a row of its own that nobody sees."""
        flat = x_BT.new_zeros(self.rows * self.width)
        flat[self.slots_BT[self.mask_BT]] = x_BT[self.mask_BT]
        return flat.view(self.rows, self.width)


def widest(model: nn.Module) -> int | None:
    """How wide a line may be for ``model``, as ``Packed.of`` has it.

    Flash attention finds rows by their positions in a batch of one line only; where a table of positions or
    of masks ends, a line must, too.
    """
    if "flash" in str(getattr(innermost(model).config, "_attn_implementation", "")):
        return 0
    return trained_length(model)


@torch.no_grad()
def check_packable(model: nn.Module, name: str) -> None:
    """Raise InputError where ``model`` cannot take packed rows: three short ones tell.

    Args:
        model: every module is left in its mode.
        name: for the message.
    """
    if virtual_tokens(model):
        raise InputError(
            f"run.packing=true: {name} has a learnt prompt before each row, and packed rows share a line. "
            "Take run.packing=false, or another peft=."
        )
    causal = innermost(model)
    try:
        with eval_mode(model):  # dropout would tell equal rows apart
            apart = _kept_apart(model)
    except TypeError:  # it takes no positions
        apart = False
    if not apart:
        raise InputError(
            f"run.packing=true: {name} ({type(causal).__name__}) does not keep packed rows apart. "
            "Take run.packing=false."
        )


def _kept_apart(model: nn.Module) -> bool:
    """Whether three rows give the same logits packed and padded, and none moves with the tokens of another.

    The second tells more in half precision: the first allows for rounding, and what stands in another row
    may round nothing differently.
    """
    size = innermost(model).get_input_embeddings().weight.shape[0]
    device = next(model.parameters()).device
    mask_BT = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 3 + [0] * 4], device=device)
    ids_BT = (torch.arange(21, device=device).view(3, 7) * 37 + 11) % size * mask_BT
    layout = Packed.of(mask_BT, widest(model))
    places_RW = layout.pack(positions(mask_BT))

    def packed(ids_BT: Tensor) -> Tensor:
        logits_RWV = model(input_ids=layout.pack(ids_BT), position_ids=places_RW, use_cache=False).logits
        return cast(Tensor, logits_RWV.flatten(0, 1)[layout.slots_BT].float())

    padded_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
    ours_BTV, theirs_BTV, real_BT = packed(ids_BT), padded_BTV.float(), mask_BT.bool()
    if not bool(theirs_BTV[real_BT].isfinite().all()):
        return True  # weights that are no numbers tell nothing of rows; the loss says it, in its own words
    loose = rounded(padded_BTV)
    apart_BTV = (ours_BTV - theirs_BTV)[real_BT].abs()
    if not apart_BTV.max() <= (5e-2 if loose else 1e-4) * theirs_BTV[real_BT].abs().max():  # nor a nan
        return False
    # LLM.int8() takes columns apart by their largest value in any row.
    leak = 5e-2 if getattr(innermost(model), "is_loaded_in_8bit", False) else 2e-3 if loose else 1e-4
    for row in range(len(ids_BT)):
        others_BT, changed_BT = real_BT.clone(), ids_BT.clone()
        others_BT[row] = False
        changed_BT[row] = (ids_BT[row] + size // 2) % size * mask_BT[row]
        moved_BTV = (packed(changed_BT) - ours_BTV).abs()
        if not moved_BTV[others_BT].max() <= leak * moved_BTV[row][real_BT[row]].max():
            return False
    return True


def rounded(x: Tensor) -> bool:
    """Whether ``x`` came of products in fewer bits than float32 has: 16-bit weights, or TF32 on a GPU."""
    return x.dtype != torch.float32 or (x.is_cuda and tf32())


def tf32() -> bool:
    """Whether a GPU multiplies float32 matrices in TF32 (10 bits of mantissa): transformers turns it on."""
    matmul = torch.backends.cuda.matmul
    # torch 2.9 has a new key that knows what was set through the old one, which may not be read after it.
    precision: str | None = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"
