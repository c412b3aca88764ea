"""One trainer for every method: draw, count, score, step.

Inside one optimizer step the order is fixed: draw every micro-batch of the accumulation window (rolling out
the student where a term asks for its own sequences), count the scored tokens of each kind of sequence over
the whole window and all ranks, score each micro-batch as a sum divided by that one count, step. So
accumulation, padding and data parallelism cannot change the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from distil.config.schema import MethodConfig, RolloutConfig
from distil.data.collate import collate
from distil.forward import Forward, scored_and_targets
from distil.head import score
from distil.losses import Term
from distil.methods.base import Method
from distil.rollouts import generate, uniforms
from distil.saving import CheckpointedTrainer
from distil.tally import Tally
from distil.types import IGNORE_INDEX, REFERENCE, ROLLOUT, RunFailed, Sequences

Evaluate = Callable[[PreTrainedModel], dict[str, float]]
"""The cheap evaluation during training: the student in, scalars out."""


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


class DistillationTrainer(CheckpointedTrainer):
    """``transformers.Trainer`` with the order inside an optimizer step taken over.

    Args:
        method: the objective; its terms say whether teacher and rollouts are needed.
        student: the model that is trained.
        teacher: a frozen model in eval mode, or None where no term needs one.
        rows: tokenised training rows (``input_ids``, ``labels``, ``prompt_ids``).
        rollouts: how the student's own sequences are sampled.
        eos_ids, pad_id: where generation stops, and what fills a batch.
        shared_vocabulary: number of leading ids that teacher and student share.
        evaluate_student: the cheap evaluation during training, or None.
    """

    def __init__(
        self,
        method: Method[MethodConfig],
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        rows: Sequence[dict[str, Any]],
        args: TrainingArguments,
        *,
        rollouts: RolloutConfig,
        eos_ids: Sequence[int],
        pad_id: int,
        shared_vocabulary: int,
        evaluate_student: Evaluate | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        # Under plain python several GPUs would mean nn.DataParallel, which splits our counts: one is used.
        args._n_gpu = min(args.n_gpu, 1)
        self.train_rows = TrainRows(rows)
        super().__init__(
            model=student,
            args=args,
            train_dataset=self.train_rows,
            eval_dataset=self.train_rows,  # never read: Trainer wants one to evaluate at all, see `evaluate`
            data_collator=lambda batch: (
                collate(batch, pad_id) | {"index": torch.tensor([r["index"] for r in batch])}
            ),
            callbacks=callbacks,
        )
        # It prints dicts on stdout: whoever wants to see scalars brings a callback.
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.method = method
        self.teacher = teacher
        self.rollouts = rollouts
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id
        self.shared_vocabulary = shared_vocabulary
        self.evaluate_student = evaluate_student
        self.tally = Tally()
        self._student_forward: Forward | None = None
        self._teacher_forward = None if teacher is None else Forward(teacher)
        if teacher is not None and getattr(teacher, "hf_device_map", None) is None:
            nn.Module.to(teacher, args.device)

    # ---- draw and count

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
        return window, None

    def terms(self) -> tuple[Term, ...]:
        """The terms of the coming step that weigh anything."""
        return tuple(term for term in self.method.terms(self.state.global_step) if term.weight != 0)

    def wants_rollouts(self) -> bool:
        """Whether a term of the coming step scores the student's own sequences."""
        return any(term.sequences is ROLLOUT for term in self.terms())

    def refuse_broken_student(self) -> None:
        """Raise RunFailed, once training is over, for a student that nobody should take for a trained one:
        weights that are no numbers, or a method whose rollouts never came."""
        self.refuse_broken_weights()
        if self.wants_rollouts() and not self.tally.rollouts:
            raise RunFailed("The method asks for the student's own sequences, but none was sampled.")

    def planned_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.set_initial_training_values(self.args, self.get_train_dataloader())[-1])

    def tokens_seen(self) -> int:
        """Scored tokens trained on so far, of all sequences and ranks."""
        return self.tally.scored_tokens + self.tally.rollout_tokens

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
        c = self.rollouts
        assert self.model is not None
        with self.accelerator.autocast():
            generated = generate(
                self.model,
                prompts,
                eos_ids=self.eos_ids,
                pad_id=self.pad_id,
                max_new_tokens=c.max_new_tokens,
                uniforms=uniforms(self.args.seed, self.state.global_step, slots, c.max_new_tokens),
                temperature=c.sampling_temperature,
                top_k=c.top_k,
                top_p=c.top_p,
                vocabulary=self.shared_vocabulary,
            )
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

    def _count(self, window: list[dict[str, Any]], fresh: Sequence[int]) -> dict[str, Tensor]:
        """Scored tokens of each kind of sequence, over the window and all ranks."""
        counts = torch.zeros(3, dtype=torch.long, device=self.args.device)
        for batch, rows in zip(window, fresh, strict=True):
            counts[0] += scored_and_targets(batch["labels"])[1].numel()
            if "rollout" in batch:
                counts[1] += scored_and_targets(batch["rollout"]["labels"])[1].numel()
                counts[2] += rows
        counts = self._over_ranks(counts)
        if any(term.sequences is REFERENCE for term in self.terms()):
            self.tally.scored_tokens += int(counts[0])
        self.tally.rollout_tokens += int(counts[1])
        self.tally.rollouts += int(counts[2])
        return {REFERENCE.value: counts[0], ROLLOUT.value: counts[1]}

    def _over_ranks(self, own: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.args.world_size == 1:
            return own
        summed: Tensor = self.accelerator.reduce(own, reduction="sum")
        return summed

    # ---- score

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """This micro-batch's share of the step's loss: sums over its tokens divided by the step's counts."""
        if self._student_forward is None or self._student_forward.model is not model:
            self._student_forward = Forward(model, inner=self.accelerator.unwrap_model(model))
        terms = self.terms()
        loss: Tensor = torch.zeros((), device=self.args.device)
        for sequences, batch in ((REFERENCE, inputs), (ROLLOUT, inputs.get("rollout"))):
            mine = [term for term in terms if term.sequences is sequences]
            if mine and batch is not None:
                loss = loss + self._score(mine, sequences, batch, inputs["counts"][sequences.value])
        if not torch.isfinite(loss):
            rows = [int(i) for i in inputs["index"]]
            raise RunFailed(
                f"The loss of step {self.state.global_step + 1} is {loss.item()}; training rows {rows}."
            )
        # Data parallelism averages gradients over ranks; the count was over all of them.
        scaled: Tensor = loss * self.args.world_size
        return scaled

    def _score(self, terms: list[Term], sequences: Sequences, batch: dict[str, Any], count: Tensor) -> Tensor:
        assert self._student_forward is not None
        ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
        scored_BT, targets_N = scored_and_targets(batch["labels"])
        with self.accelerator.autocast():
            teacher = None
            if any(term.needs_teacher for term in terms):
                assert self._teacher_forward is not None, "a term needs the teacher that was not loaded"
                with torch.no_grad():
                    teacher = self._teacher_forward(ids_BT, mask_BT, scored_BT)
            student = self._student_forward(ids_BT, mask_BT, scored_BT)
            loss, sums_K = score(student, targets_N, terms, teacher, self.shared_vocabulary)
        for term, value in zip(terms, sums_K, strict=True):
            self.tally.add(term.name, value, targets_N.numel())
        return loss / count.clamp(min=1)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]  # Trainer's own
        value = float(norm)
        if not math.isfinite(value) and not self.args.fp16:  # fp16's scaler meets infinities by design
            raise RunFailed(f"The gradient of step {self.state.global_step + 1} is {value}.")
        return norm

    # ---- evaluation during training

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The cheap evaluation; its NLL is ``eval_loss`` too, for schedulers and the best model."""
        if self.evaluate_student is None:
            return {}
        with self.accelerator.autocast():
            scalars = self.evaluate_student(cast(PreTrainedModel, self.model))
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in scalars.items()}
        metrics[f"{metric_key_prefix}_loss"] = scalars["nll_per_token"]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each term's mean since the last log (nats per scored token) to what Trainer logs."""
        if "loss" in logs:
            logs |= self.tally.means(self._over_ranks)
        super().log(logs, start_time)

    # ---- what a checkpoint holds besides Trainer's own state

    def own_state(self) -> dict[str, Any]:
        """What method and tally have observed."""
        return {"method": self.method.state_dict(), "tally": self.tally.totals()}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` gave."""
        self.method.load_state_dict(state["method"])
        self.tally = Tally(**state["tally"])
