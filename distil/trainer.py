"""One trainer for every method: draw, count, score, step.

Inside one optimizer step the order is fixed: draw every micro-batch of the accumulation window (rolling out
the student where a term asks for its own sequences), count the scored tokens of each kind of sequence over
the whole window and all ranks, score each micro-batch as a sum divided by that one count, step. So
accumulation, padding and data parallelism cannot change the answer.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil import checkpoints
from distil.config.schema import MethodConfig, RolloutConfig
from distil.data.collate import collate
from distil.files import read_json, write_json
from distil.forward import Forward, scored_and_targets
from distil.head import score
from distil.losses import Term
from distil.methods.base import Method
from distil.rollouts import generate, uniforms
from distil.tally import Tally
from distil.types import IGNORE_INDEX, REFERENCE, ROLLOUT, RunFailed, Sequences

METHOD_STATE = "method_state.json"

Evaluate = Callable[[PreTrainedModel], dict[str, float]]
"""The cheap evaluation during training: the student in, scalars out."""


class TrainRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised rows, each with its index, so that a rollout can find the prompt and an error can name the
    row."""

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


class DistillationTrainer(Trainer):
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
        # Rotation is ours too: Trainer's own would remove even the last checkpoint once training is over.
        self.checkpoints_kept, args.save_total_limit = args.save_total_limit or 1, None
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
        self.remove_callback(
            PrinterCallback
        )  # dicts on stdout: whoever wants to see scalars brings a callback
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
        self._save_root: Path | None = None
        self._resumed_best: Path | None = None
        if teacher is not None:
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
        # A resumed run skips to here before the training loop has its state: the step is already the right
        # one.
        if window and self.wants_rollouts():
            self._roll_out(window)
        counts = self._count(window)
        for batch in window:
            batch["counts"] = counts
        return window, None

    def terms(self) -> tuple[Term, ...]:
        """The terms of the coming step that weigh anything."""
        return tuple(term for term in self.method.terms(self.state.global_step) if term.weight != 0)

    def wants_rollouts(self) -> bool:
        """Whether a term of the coming step scores the student's own sequences."""
        return any(term.sequences is ROLLOUT for term in self.terms())

    def planned_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.set_initial_training_values(self.args, self.get_train_dataloader())[-1])

    def tokens_seen(self) -> int:
        """Scored tokens trained on so far, of all sequences and ranks."""
        return self.tally.scored_tokens + self.tally.rollout_tokens

    def _roll_out(self, window: list[dict[str, Any]]) -> None:
        """Sample one response a row, the whole window in one generation batch, and add them to the micro-
        batches."""
        sizes = [len(batch["index"]) for batch in window]
        indices = [int(i) for batch in window for i in batch["index"]]
        prompts = [self.train_rows[i]["prompt_ids"] for i in indices]
        # Noise belongs to the row's place in the global batch: micro-batch size, rank and padding cannot move
        # it.
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
        for batch, size in zip(window, sizes, strict=True):
            rolled = collate(rows[start : start + size], self.pad_id)
            batch["rollout"] = {key: value.to(self.args.device) for key, value in rolled.items()}
            start += size

    def _count(self, window: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Scored tokens of each kind of sequence, over the window and all ranks."""
        counts = torch.zeros(3, dtype=torch.long, device=self.args.device)
        for batch in window:
            counts[0] += scored_and_targets(batch["labels"])[1].numel()
            if "rollout" in batch:
                counts[1] += scored_and_targets(batch["rollout"]["labels"])[1].numel()
                counts[2] += len(batch["rollout"]["labels"])
        counts = self._over_ranks(counts)
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

    def _run_epoch(self, *arguments: Any, **keywords: Any) -> None:
        # Gone on from its last checkpoint within an epoch, Trainer would take one step too many.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **keywords)  # type: ignore[no-untyped-call]  # theirs has no types

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
        """The cheap evaluation; its likelihood is also ``eval_loss``, for schedulers and
        ``metric_for_best_model``."""
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

    # ---- checkpoints: complete or absent

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_root or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        root = Path(self._get_output_dir(trial))
        if (root / name).exists():  # the last step can be asked for twice: by interval and by the end
            return
        self.refuse_broken_weights()
        partial = checkpoints.partial_folder(root, name)
        self._save_root = partial
        try:
            super()._save_checkpoint(model, trial)
            best = self._place_of_best(root)
            self.accelerator.wait_for_everyone()  # each process has its random state to write
            if self.args.should_save:
                self.state.save_to_json(str(partial / name / TRAINER_STATE_NAME))
                own = {"method": self.method.state_dict(), "tally": self.tally.totals()}
                write_json(partial / name / METHOD_STATE, own)
                checkpoints.publish(partial / name, root / name)
                checkpoints.rotate(root, self.checkpoints_kept, best)
            self.accelerator.wait_for_everyone()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk, room to say what happened
            raise
        finally:
            self._save_root = None

    def _place_of_best(self, root: Path) -> Path | None:
        """The best checkpoint's own place: Trainer notes the one where it was written."""
        noted = self.state.best_model_checkpoint
        if noted is None:
            return None
        best = root / Path(noted).name
        self.state.best_model_checkpoint = str(best)
        return best

    def refuse_broken_weights(self) -> None:
        """Raise RunFailed where weights are no numbers: nobody could go on from such a checkpoint."""
        step = self.state.global_step
        if not all(bool(torch.isfinite(p).all()) for p in cast(nn.Module, self.model).parameters()):
            raise RunFailed(
                f"Step {step} left weights that are nan or infinite. A lower trainer.learning_rate, or "
                "trainer.max_grad_norm=1, may help."
            )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that nothing of ours reads.
        Path(output_dir or self._get_output_dir(None), "training_args.bin").unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = read_json(Path(resume_from_checkpoint) / METHOD_STATE)
        self.method.load_state_dict(state["method"])
        self.tally = Tally(**state["tally"])
        noted = read_json(Path(resume_from_checkpoint) / TRAINER_STATE_NAME)["best_model_checkpoint"]
        self._resumed_best = None if noted is None else Path(self.args.output_dir or "", Path(noted).name)
        if self.args.load_best_model_at_end and self._resumed_best and not self._resumed_best.is_dir():
            raise RunFailed(
                f"trainer.load_best_model_at_end=true: the best checkpoint so far, {self._resumed_best}, is "
                "gone. run.resume=false starts this run afresh."
            )

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Tied weights are saved once: what is missing of them is not missed.
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _init_training_state(self, *arguments: Any, **keywords: Any) -> Any:
        begun = super()._init_training_state(*arguments, **keywords)
        if self._resumed_best is not None:  # Trainer forgets it where the run directory was moved
            self.state.best_model_checkpoint = str(self._resumed_best)
        return begun
