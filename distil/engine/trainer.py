"""One trainer for every method: draw, count, score, step.

Inside one optimizer step the order is fixed: draw every micro-batch of the accumulation window (rolling out
the student where a term asks for its own sequences), count the scored tokens of each kind of sequence over
the whole window and all ranks, score each micro-batch as a sum divided by that one count, step. So
accumulation, padding and data parallelism cannot change the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from distil.config.schema import MethodConfig, RolloutConfig
from distil.data.collate import collate
from distil.engine.anatomy import to_device
from distil.engine.broken_steps import Broken, BrokenSteps
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.saving import noted
from distil.engine.tally import Tally
from distil.engine.watch import Watch
from distil.engine.windows import TrainRows, WindowedTrainer
from distil.head import Dense, score
from distil.losses import Term
from distil.methods.base import Method
from distil.processes import ranks
from distil.processes.sharded import way
from distil.types import REFERENCE, ROLLOUT, RunFailed, Sequences

if TYPE_CHECKING:
    from distil.sparse import Sparse
    from distil.teacher_cache.answers import CachedTeacher

Evaluate = Callable[[PreTrainedModel], dict[str, float]]
"""The cheap evaluation during training: the student in, scalars out."""


class DistillationTrainer(WindowedTrainer):
    """``transformers.Trainer`` with the order inside an optimizer step taken over.

    Args:
        method: the objective; its terms say whether teacher and rollouts are needed.
        student: the model that is trained.
        teacher: a frozen model in eval mode, or None where no term needs one, or only what is cached.
        rows: tokenised training rows (``input_ids``, ``labels``, ``prompt_ids``).
        rollouts: how the student's own sequences are sampled.
        eos_ids, pad_id: where generation stops, and what fills a batch.
        shared_vocabulary: number of leading ids that teacher and student share.
        packing: lay the rows of a micro-batch end to end; both models were asked by ``check_packable``.
        evaluate_student: the cheap evaluation during training, or None.
        cached: what the teacher said about ``rows``: it is not asked about them then.
        broken_steps: what becomes of steps whose loss or gradient is no number; None: training stops there.
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
        packing: bool = False,
        evaluate_student: Evaluate | None = None,
        cached: CachedTeacher | None = None,
        broken_steps: BrokenSteps | None = None,
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
        )
        # It prints dicts on stdout: whoever wants to see scalars brings a callback.
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.method = method
        self.purpose = asdict(method.config) | noted(args)
        self.rollouts = rollouts
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id
        self.shared_vocabulary = shared_vocabulary
        self.evaluate_student = evaluate_student
        self.cached = cached
        self.tally = Tally()
        self.watch = Watch(rollouts.max_new_tokens)
        self._step_loss: Tensor | None = None
        self._broken: tuple[str, float] | None = None
        self._student_forward: Forward | None = None
        self.packing = packing
        self.broken_steps = BrokenSteps() if broken_steps is None else broken_steps
        self.kept["broken_steps"] = self.broken_steps
        self.add_callback(self.broken_steps)
        self._take_teacher(teacher)

    def _take_teacher(self, teacher: PreTrainedModel | None) -> None:
        self.teacher = teacher
        self._teacher_forward = None if teacher is None else Forward(teacher, packing=self.packing)
        if teacher is not None:
            to_device(teacher, self.args.device)
            if ranks.sharded():
                self.shells.keep(teacher)
                way().shard_frozen(teacher)

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
            self._student_forward = Forward(model, self.accelerator.unwrap_model(model), self.packing)
        terms = self.terms()
        loss: Tensor = torch.zeros((), device=self.args.device)
        for sequences, batch in ((REFERENCE, inputs), (ROLLOUT, inputs.get("rollout"))):
            mine = [term for term in terms if term.sequences is sequences]
            if mine and batch is not None:
                part, sums_K, tokens = self._score(mine, sequences, batch)
                loss = loss + part / inputs["counts"][sequences.value].clamp(min=1)
                self.tally.add_terms([term.name for term in mine], sums_K, tokens)
        if not bool(torch.isfinite(loss)):
            self._broken = "loss", loss.item()
            if not self.broken_steps.most:  # at once: the micro-batch is known
                self.broken_steps.meet(self.state.global_step + 1, [Broken.of(self._broken, [inputs])])
            loss = torch.nan_to_num(loss, 0.0, 0.0, 0.0)
        share = loss.detach()
        self._step_loss = share if self._step_loss is None else self._step_loss + share
        # Data parallelism averages gradients over ranks; the count was over all of them.
        scaled: Tensor = loss * self.args.world_size
        return scaled

    def _score(
        self, terms: list[Term], sequences: Sequences, batch: dict[str, Any]
    ) -> tuple[Tensor, Tensor, int]:
        """Weighted sum of the terms over a batch, the sum of each, and the scored tokens."""
        assert self._student_forward is not None
        ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
        scored_BT, targets_N = scored_and_targets(batch["labels"])
        with self.accelerator.autocast():
            teacher = None
            if any(term.needs_teacher for term in terms):
                teacher = self._cached(terms, batch, scored_BT) if sequences is REFERENCE else None
                teacher = teacher or self._asked(ids_BT, mask_BT, scored_BT)
            student = self._student_forward(ids_BT, mask_BT, scored_BT)
            loss, sums_K = score(student, targets_N, terms, teacher, self.shared_vocabulary)
        if self.teacher is not None and ranks.sharded():
            way().reshard(self.teacher)
        return loss, sums_K, targets_N.numel()

    @torch.no_grad()
    def _asked(self, ids_BT: Tensor, mask_BT: Tensor, scored_BT: Tensor) -> Dense:
        assert self._teacher_forward is not None, "a term needs the teacher that was not loaded"
        return self._teacher_forward(ids_BT, mask_BT, scored_BT)

    def _cached(
        self, terms: Sequence[Term], batch: Mapping[str, Any], scored_BT: Tensor
    ) -> Dense | Sparse | None:
        """What the cache holds about a batch of the data set; None where there is no cache."""
        if self.cached is None:
            return None
        for term in terms:
            why = self.cached.format.refusal(term) if term.needs_teacher else None
            if why is not None:  # terms may change from step to step
                raise RunFailed(f"Step {self.state.global_step + 1}: {why}.")
        # Rows that only fill up an epoch have no scored position.
        counts = zip(batch["index"].tolist(), scored_BT.any(-1).tolist(), strict=True)
        return self.cached([row for row, scored in counts if scored])

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]  # Trainer's own
        value = float(norm)
        # fp16's scaler meets infinities by design.
        if self._broken is None and not math.isfinite(value) and not self.args.fp16:
            self._broken = "gradient", value
        # A gradient is everybody's; a loss, where it may be left out, that of one process.
        broken = self._broken is not None
        if ranks.any_of(broken) if self.broken_steps.most else broken:
            self._leave_out(model)
            return 0.0
        self._count_step()
        return norm

    def _leave_out(self, model: nn.Module) -> None:
        """Leave the step at hand out, as if it had not been; or raise RunDiverged."""
        mine = None if self._broken is None else Broken.of(self._broken, self.window)
        found = [each for each in ranks.gathered(mine) if each is not None]
        if self._step_loss is not None:
            self.broken_steps.see(float(self._step_loss) * self.args.world_size)
        self._broken = self._step_loss = None
        self.tally.leave_out(self.counted)
        self.broken_steps.meet(self.state.global_step + 1, found)
        model.zero_grad()  # the optimizer has nothing to do

    def _count_step(self) -> None:
        assert self._step_loss is not None, "a step without a micro-batch"
        self.tally.add_step(self._step_loss)
        share = float(self._step_loss)
        self.broken_steps.see(share * self.args.world_size)
        self.watch.step(self.state.global_step + 1, share, ranks.gathered)
        self._step_loss = None

    # ---- evaluation during training

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The cheap evaluation; its NLL is ``eval_loss`` too, for schedulers and the best model."""
        if self.evaluate_student is None:
            return {}
        with self.accelerator.autocast():
            scalars = self.evaluate_student(cast(PreTrainedModel, self.model))
        for model in (self.model, self.teacher):
            if model is not None and ranks.sharded():
                way().reshard(model)
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in scalars.items()}
        metrics[f"{metric_key_prefix}_loss"] = scalars["nll_per_token"]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to what Trainer logs: each term's mean since the last log (nats per scored token), and what
        rollouts are like."""
        if "loss" in logs:
            del logs["loss"]  # Trainer's divides by the steps that were left out, too
            logs |= self.tally.means(self._over_ranks) | self.watch.news()
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # No run ends without a loss: one shorter than logging_steps would log none.
        if self.state.global_step >= self.state.max_steps and self.args.logging_strategy != "no":
            self.control.should_log = True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    # ---- what a checkpoint holds besides Trainer's own state

    def own_state(self) -> dict[str, Any]:
        """What method and tally have observed."""
        return {
            "method": self.method.state_dict(),
            "tally": self.tally.totals(),
            "since_log": self.tally.since_log(self._over_ranks),
            "watch": self.watch.state_dict(ranks.gathered),
        }

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` gave."""
        self.method.load_state_dict(state["method"])
        self.tally = Tally(**state["tally"])
        self.tally.go_on(state.get("since_log", {}), self.args.device, ranks.is_main())
        if "watch" in state:
            self.watch.load_state_dict(state["watch"], ranks.is_main())
