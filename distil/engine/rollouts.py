"""The student's own sequences, sampled so that a row's tokens depend on its noise and on nothing beside it.

``generate()`` of transformers takes no generator and obeys the model's own generation_config. This sampler
takes its chance as an argument (one uniform number a token, turned into a token by the inverse of the
cumulative distribution) and its settings from the call alone. So batch size, padding, rank and resume cannot
move a rollout.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distil.engine.anatomy import innermost, opening, position_limit, positions, virtual_tokens
from distil.engine.modes import eval_mode, without_checkpointing
from distil.engine.unpacked import unpacked

RUN = 256
"""Ids that are summed up before any of them is looked at."""


class Sampling(Protocol):
    """How tokens are drawn, as ``rollouts`` and ``eval`` of a config have it."""

    max_new_tokens: int
    sampling_temperature: float
    """Divides the logits, in float32."""
    top_k: int
    """Then the likeliest K are left; 0: all."""
    top_p: float
    """Then the likeliest that hold this share of the probability; 1: all."""


@dataclass(frozen=True)
class Generated:
    """One continuation: its token ids (the EOS too, where it was reached), never decoded and read back."""

    ids: list[int]
    ended: bool
    """Whether it stopped at an EOS rather than at the limit."""


def generator_of(*name: int) -> torch.Generator:
    """A generator, on the CPU, of the chance that belongs to these numbers alone."""
    digest = hashlib.blake2b(",".join(map(str, name)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def uniforms(seed: int, step: int, rows: Sequence[int], length: int) -> Tensor:
    """Noise in [0, 1) for ``rows`` of optimizer step ``step``: float64 (B, length), on the CPU.

    Each row has a generator of its own, so its numbers are the same in any grouping, and a shorter ``length``
    gives a prefix of a longer one.
    """
    noise = torch.empty(len(rows), length, dtype=torch.float64)
    for i, row in enumerate(rows):
        noise[i].uniform_(generator=generator_of(seed, step, row))
    return noise


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_ids: Collection[int],
    pad_id: int,
    uniforms: Tensor | None,
    vocabulary: int | None = None,
) -> list[Generated]:
    """Continue each prompt until an EOS or ``max_new_tokens``, all prompts in one batch with a KV cache.

    Args:
        model: a causal language model, plain or wrapped by PEFT; it is called, so hooks and adapters run.
            It runs in eval mode with gradient checkpointing off; both come back. Autocast is the caller's.
        prompts: token ids, none empty.
        sampling: how tokens are drawn; the model's own generation_config has no say.
        eos_ids: any of these ends a row, and stays in its ids.
        pad_id: fills the left of shorter prompts (masked, so any id serves).
        uniforms: noise (B, >= max_new_tokens) in [0, 1), float64; None decodes greedily.
        vocabulary: only ids below it are written (None: any that the model has).

    A model with absolute positions (GPT-2) holds ``max_position_embeddings`` tokens: a row stops there with
    ``ended=False``, and a prompt that fills them all gets no token. Raises ValueError for an empty prompt or
    one that is longer still.
    """
    room = _room(model, prompts, sampling.max_new_tokens)
    rows = [i for i in range(len(prompts)) if room[i] > 0]
    ids: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    with eval_mode(model), without_checkpointing(model), unpacked(model):
        decoder = _Decoder(model, [prompts[i] for i in rows], pad_id)
        while rows:
            # All rows of a batch are at the same token: each of them has drawn as many.
            at = len(ids[rows[0]])
            noise_B = None if uniforms is None else uniforms[rows, at]
            tokens_B = next_tokens(decoder.logits_BV[:, :vocabulary], noise_B, sampling)
            stay = []
            for slot, (row, token) in enumerate(zip(rows, tokens_B.tolist(), strict=True)):
                ids[row].append(token)
                ended[row] = token in eos_ids
                if not ended[row] and len(ids[row]) < room[row]:
                    stay.append(slot)
            rows = [rows[slot] for slot in stay]
            if rows:
                decoder.step(tokens_B, stay)
    return [Generated(*row) for row in zip(ids, ended, strict=True)]


def next_tokens(logits_BV: Tensor, uniforms_B: Tensor | None, sampling: Sampling) -> Tensor:
    """One token a row: the likeliest (no noise), or the one whose share of [0, 1) holds the noise."""
    logits_BV = logits_BV.float()
    if uniforms_B is None:
        return logits_BV.argmax(-1)
    if sampling.sampling_temperature != 1:
        logits_BV = logits_BV / sampling.sampling_temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        kth_B1 = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
    if sampling.top_p < 1:
        logits_BV = _nucleus(logits_BV, sampling.top_p)
    return _inverse_cdf(logits_BV, uniforms_B)


def _inverse_cdf(logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The token whose share of [0, 1) holds the noise: first its run of ids, then its place in the run.

    Two levels, so that one sum and not a cumulative one passes over the vocabulary; they add up in float64.
    Of logits that are no numbers some token is given: the loss is what says it, a bad index kills a GPU.
    """
    B, V = logits_BV.shape
    runs = -(-V // RUN)
    weights_BRW = logits_BV.new_zeros(B, runs, RUN)
    weights_BV = weights_BRW.view(B, -1)[:, :V]
    torch.sub(logits_BV, logits_BV.amax(-1, keepdim=True), out=weights_BV).mul_(1 / math.log(2)).exp2_()
    to_run_BR = weights_BRW.sum(-1).double().cumsum(-1)
    point_B1 = _below(uniforms_B.to(to_run_BR)[:, None] * to_run_BR[:, -1:], to_run_BR[:, -1:])
    run_B1 = torch.searchsorted(to_run_BR, point_B1, right=True).clamp(max=runs - 1)
    before_B1 = to_run_BR.gather(-1, (run_B1 - 1).clamp(min=0)).masked_fill(run_B1 == 0, 0)
    in_run_BW = weights_BRW[torch.arange(B, device=run_B1.device), run_B1[:, 0]].double().cumsum(-1)
    point_B1 = _below(point_B1 - before_B1, in_run_BW[:, -1:])
    tokens_B1 = run_B1 * RUN + torch.searchsorted(in_run_BW, point_B1, right=True)
    return tokens_B1.clamp(max=V - 1).squeeze(-1)


def _below(point_B1: Tensor, total_B1: Tensor) -> Tensor:
    """Strictly below the total: rounding must not push the point past the last token with a probability."""
    return torch.minimum(point_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))


def _nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probabilities reach ``top_p`` together; at least one."""
    ascending_BV, order_BV = logits_BV.sort(dim=-1)
    out_BV = ascending_BV.softmax(-1).cumsum(-1) <= 1 - top_p
    out_BV[:, -1] = False
    return logits_BV.masked_fill(torch.zeros_like(out_BV).scatter(-1, order_BV, out_BV), -torch.inf)


class _Decoder:
    """A batch that grows token by token: mask, positions and cache, and the newest logits."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        learnt = virtual_tokens(model)
        # Behind a learnt prompt the innermost model is called: PEFT's own forward would drop the positions.
        self.model = innermost(model) if learnt else model
        self.cache: Any = None
        if not prompts:
            return
        self.accepts = inspect.signature(innermost(model).forward).parameters
        width = max(map(len, prompts))
        device = next(model.parameters()).device
        ids_BT = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        self.mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        if learnt:
            first = opening(model, ids_BT, self.mask_BT)
            self.mask_BT = first.mask_BT
            self._advance(first.positions_BT, **first.arguments)
            return
        self._advance(positions(self.mask_BT), input_ids=ids_BT)

    def step(self, tokens_B: Tensor, stay: Sequence[int]) -> None:
        """Append a token to each row, going on with the rows at ``stay`` alone."""
        if len(stay) < len(tokens_B):
            kept = torch.tensor(stay, device=tokens_B.device)
            self.cache.reorder_cache(kept)  # not batch_select_indices: linear-attention layers lack it
            self.mask_BT, tokens_B = self.mask_BT[kept], tokens_B[kept]
        positions_B1 = self.mask_BT.sum(-1, keepdim=True)
        self.mask_BT = torch.cat([self.mask_BT, torch.ones_like(positions_B1)], dim=-1)
        self._advance(positions_B1, input_ids=tokens_B[:, None], past_key_values=self.cache)

    def _advance(self, positions_BT: Tensor, **inputs: Any) -> None:
        inputs |= {"attention_mask": self.mask_BT, "use_cache": True}
        if "position_ids" in self.accepts:
            inputs["position_ids"] = positions_BT
        if "logits_to_keep" in self.accepts:
            inputs["logits_to_keep"] = 1
        output = self.model(**inputs)
        self.cache = output.past_key_values
        self.logits_BV: Tensor = output.logits[:, -1]


def _room(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """How many new tokens each row may have."""
    limit = position_limit(model)
    room = []
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {i} is empty: generation starts from at least one token.")
        if limit is not None and len(prompt) > limit:
            raise ValueError(f"prompt {i} has {len(prompt)} tokens; the model has {limit} positions.")
        room.append(max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt)))
    return room
