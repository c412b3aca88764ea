"""What one optimizer step trains on: its micro-batches, drawn, rolled out, counted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from distil.config.schema import MethodConfig, RolloutConfig
from distil.data.collate import collate
from distil.engine.forward import scored_and_targets
from distil.engine.rollouts import generate, uniforms
from distil.engine.saving import CheckpointedTrainer
from distil.engine.tally import Tally
from distil.engine.watch import Watch
from distil.losses import Term
from distil.methods.base import Method
from distil.types import IGNORE_INDEX, REFERENCE, ROLLOUT


class TrainRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised rows with their indices: a rollout finds its prompt by it, an error names its row."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = [
            {
                "index": i,
                "input_ids": row["input_ids"],
                "labels": row["labels"],
                "prompt_ids": row["prompt_ids"],
            }
            for i, row in enumerate(rows)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class WindowedTrainer(CheckpointedTrainer):
    """A trainer that draws a whole accumulation window before it scores any of it.

    Who inherits sets these before training.
    """

    train_rows: TrainRows
    method: Method[MethodConfig]
    rollouts: RolloutConfig
    eos_ids: tuple[int, ...]
    pad_id: int
    shared_vocabulary: int
    tally: Tally
    watch: Watch
    window: Sequence[dict[str, Any]] = ()
    """The micro-batches of the step at hand."""
    counted: tuple[int, int, int] = (0, 0, 0)
    """Its scored tokens, tokens of rollouts, and rollouts, over all processes."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Trainer's own; what a terminal or Slurm sends to all processes of a group misses its workers."""
        loader = super().get_train_dataloader()
        inner: DataLoader[Any] = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper is deaf
        inner.worker_init_fn = partial(_begin_worker, inner.worker_init_fn)
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], None]:
        """Draw the micro-batches of one optimizer step, roll the student out, count what will be scored."""
        window: list[dict[str, Any]] = []
        for _ in range(num_batches):
            batch = next(epoch_iterator, None)
            if batch is None:
                break
            window.append(batch)
        fresh = self._without_repeats(window)
        if window and self.wants_rollouts():
            self._roll_out(window, fresh)
        counts = self._count(window, fresh)
        for batch in window:
            batch["counts"] = counts
        self.window = window
        return window, None

    def terms(self) -> tuple[Term, ...]:
        """The terms of the coming step that weigh anything."""
        return tuple(term for term in self.method.terms(self.state.global_step) if term.weight != 0)

    def wants_rollouts(self) -> bool:
        """Whether a term of the coming step scores the student's own sequences."""
        return any(term.sequences is ROLLOUT for term in self.terms())

    def _without_repeats(self, window: list[dict[str, Any]]) -> list[int]:
        """How many leading rows of each micro-batch are new in this epoch; the others' labels are blanked.

        Several processes get batches of one size and number: rows drawn before fill up the end of an epoch.
        """
        rank, world, size = self.args.process_index, self.args.world_size, self.args.train_batch_size
        if world == 1 or self.args.dataloader_drop_last:
            return [len(batch["index"]) for batch in window]
        rows, accumulated = len(self.train_rows), self.args.gradient_accumulation_steps
        steps = math.ceil(math.ceil(rows / (size * world)) / accumulated)  # of an epoch
        first = self.state.global_step % steps * accumulated
        starts = [(at * world + rank) * size for at in range(first, first + len(window))]
        fresh = [min(max(rows - start, 0), size) for start in starts]
        for batch, count in zip(window, fresh, strict=True):
            batch["labels"][count:] = IGNORE_INDEX
        return fresh

    def _roll_out(self, window: list[dict[str, Any]], fresh: Sequence[int]) -> None:
        """Sample a response for each row of the window, in one batch, and add them to the micro-batches.

        Only the first ``fresh`` responses of each are scored.
        """
        sizes = [len(batch["index"]) for batch in window]
        indices = [int(i) for batch in window for i in batch["index"]]
        prompts = [self.train_rows[i]["prompt_ids"] for i in indices]
        # Noise belongs to the row's place in the global batch: no micro-batch size, rank or padding moves it.
        rank, world, size = self.args.process_index, self.args.world_size, self.args.train_batch_size
        slots = [(at * world + rank) * size + i for at, count in enumerate(sizes) for i in range(count)]
        noise = uniforms(self.args.seed, self.state.global_step, slots, self.rollouts.max_new_tokens)
        assert self.model is not None
        with self.accelerator.autocast():
            generated = generate(
                self.shells.filled(self.model),  # rows end where they end: some processes go on longer
                prompts,
                self.rollouts,
                eos_ids=self.eos_ids,
                pad_id=self.pad_id,
                uniforms=noise,
                vocabulary=self.shared_vocabulary,
            )
        self.shells.emptied()
        references = [row[len(prompt) :] for row, prompt in zip(self._ids(indices), prompts, strict=True)]
        self.watch.see(generated, references)
        rows = [
            {
                "input_ids": prompt + response.ids,
                "labels": [IGNORE_INDEX] * len(prompt) + response.ids,
            }
            for prompt, response in zip(prompts, generated, strict=True)
        ]
        start = 0
        for batch, size, count in zip(window, sizes, fresh, strict=True):
            rolled = collate(rows[start : start + size], self.pad_id)
            rolled["labels"][count:] = IGNORE_INDEX
            batch["rollout"] = {key: value.to(self.args.device) for key, value in rolled.items()}
            start += size

    def _ids(self, indices: Sequence[int]) -> list[list[int]]:
        return [self.train_rows[i]["input_ids"] for i in indices]

    def _count(self, window: list[dict[str, Any]], fresh: Sequence[int]) -> dict[str, Tensor]:
        """Scored tokens of each kind of sequence, over the window and all ranks."""
        counts = torch.zeros(3, dtype=torch.long, device=self.args.device)
        for batch, rows in zip(window, fresh, strict=True):
            counts[0] += scored_and_targets(batch["labels"])[1].numel()
            if "rollout" in batch:
                counts[1] += scored_and_targets(batch["rollout"]["labels"])[1].numel()
                counts[2] += rows
        counts = self._over_ranks(counts)
        scores_references = any(term.sequences is REFERENCE for term in self.terms())
        self.counted = (int(counts[0]) if scores_references else 0, int(counts[1]), int(counts[2]))
        self.tally.add_counts(self.counted)
        return {REFERENCE.value: counts[0], ROLLOUT.value: counts[1]}

    def _over_ranks(self, own: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.args.world_size == 1:
            return own
        summed: Tensor = self.accelerator.reduce(own, reduction="sum")
        return summed


def _begin_worker(seed: Callable[[int], None] | None, worker: int) -> None:
    # In a group of its own: a worker that ends of the signal takes the step along that was to be saved.
    os.setpgid(0, 0)
    if seed is not None:
        seed(worker)
