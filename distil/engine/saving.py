"""``transformers.Trainer`` with checkpoints that are complete or absent, and resumes that are exact."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from distil.engine import checkpoints
from distil.engine.anatomy import is_adapted
from distil.engine.checkpoint_reading import readable
from distil.processes import ranks
from distil.processes.sharded import Shells, finite, load_weights, way
from distil.system.files import read_json, write_json
from distil.types import RunDiverged, RunFailed

OWN_STATE = "method_state.json"
TRAINED = "trained.safetensors"
"""Of an adapted model, the trained parameters by name. PEFT's own format leaves out the network behind a
prompt, so that nobody could go on from it."""


NOTED = [
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "seed",
    "bf16",
    "fp16",
]
"""Arguments of a training that its checkpoints note: another value changes what comes, or is not heard."""


def noted(arguments: TrainingArguments) -> dict[str, Any]:
    """NOTED of ``arguments``, as JSON has them."""
    return {name: getattr((value := getattr(arguments, name)), "value", value) for name in NOTED}


class Kept(Protocol):
    """What a checkpoint holds, and gives back to whoever goes on from it; JSON."""

    def state_dict(self) -> dict[str, Any]:
        """Its state now."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""


class CheckpointedTrainer(Trainer):
    """Writes each checkpoint beside its place, and publishes it with its manifest.

    A subclass says what it keeps besides Trainer's state: ``own_state`` and ``load_own_state``.

    Whole and sharded models share this class: Trainer calls the same methods for both, in its own order,
    so each has its two ways side by side. How a model is cut up is ``way()``, in ``processes``.
    """

    def __init__(self, *, args: TrainingArguments, **keywords: Any) -> None:
        # Rotation is ours: Trainer's own would remove even the last checkpoint once training is over.
        self.checkpoints_kept, args.save_total_limit = args.save_total_limit or sys.maxsize, None
        self._save_root: Path | None = None
        self._resumed_best: Path | None = None
        self.purpose: dict[str, Any] = {}
        """What the training is for, noted in each checkpoint: read by who would go on from one. JSON."""
        self.kept: dict[str, Kept] = {}
        """What watches the training and goes on with it, by the name that it has in a checkpoint."""
        self.shells = Shells()
        if ranks.sharded():
            self.shells.keep(keywords["model"])
        super().__init__(args=args, **keywords)

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **keywords: Any) -> TrainOutput:
        """Trainer's own, which would meet a state that is none of its own before anything of ours."""
        if isinstance(resume_from_checkpoint, str):
            with readable(resume_from_checkpoint):
                TrainerState.load_from_json(str(Path(resume_from_checkpoint, TRAINER_STATE_NAME)))
        return super().train(resume_from_checkpoint, *arguments, **keywords)

    def own_state(self) -> dict[str, Any]:
        """What a resumed run must know besides Trainer's own state; JSON."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` gave."""

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
            beside = {each: kept.state_dict() for each, kept in self.kept.items()}
            own = self.own_state()  # asked in all processes: some of it is a sum over them
            if self.args.should_save:
                self.state.save_to_json(str(partial / name / TRAINER_STATE_NAME))
                write_json(partial / name / OWN_STATE, own | beside | {"purpose": self.purpose})
                checkpoints.publish(partial / name, root / name)
                checkpoints.rotate(root, self.checkpoints_kept, best)
            self.accelerator.wait_for_everyone()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk, room to say what happened
            raise
        finally:
            self._save_root = None

    def _place_of_best(self, root: Path) -> Path | None:
        """The best checkpoint's own place: of one just written, Trainer notes where it was written."""
        noted = self.state.best_model_checkpoint
        if noted is None:
            return None
        written = Path(noted).parent == self._save_root
        best = root / Path(noted).name if written else Path(noted)
        self.state.best_model_checkpoint = str(best)
        return best

    def refuse_broken_weights(self) -> None:
        """Raise RunDiverged where weights are no numbers: nobody could go on from such a checkpoint."""
        step = self.state.global_step
        if ranks.any_of(not finite(cast(nn.Module, self.model))):
            raise RunDiverged(
                f"Step {step} left weights that are nan or infinite. A lower trainer.learning_rate, or "
                "trainer.max_grad_norm=1, may help."
            )

    def create_accelerator_and_postprocess(self) -> None:
        """Trainer's own, and what a way to cut models up needs besides."""
        super().create_accelerator_and_postprocess()
        if ranks.sharded():
            way().settle(self.accelerator)
            self.is_fsdp_enabled = not ranks.zero()

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, checkpoint: str | None) -> Any:
        # With DeepSpeed it would look for an engine's own checkpoint, where ours are like any other.
        theirs = None if ranks.zero() else checkpoint
        prepared = super()._prepare_for_training(  # type: ignore[no-untyped-call]  # theirs has no types
            max_steps, train_dataloader, theirs
        )
        if ranks.sharded():
            way().watch(cast(PreTrainedModel, self.model))
        if checkpoint is not None and theirs is None:
            self._load_from_checkpoint(checkpoint)
            self._load_optimizer_and_scheduler(checkpoint)
        return prepared

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trainer's own; of a sharded model, the first process writes it whole."""
        if not ranks.sharded():
            super().save_model(output_dir, _internal_call)
            return
        whole = self.shells.filled(cast(PreTrainedModel, self.model))
        if self.args.should_save:
            whole.save_pretrained(output_dir or self._get_output_dir(None))
        self.shells.emptied()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if (model := self._adapted()) is not None:
            folder = Path(output_dir or self._get_output_dir(None))
            folder.mkdir(parents=True, exist_ok=True)
            trained = {
                name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad
            }
            save_file(trained, folder / TRAINED)
            return
        super()._save(output_dir, state_dict)
        # A pickle that nothing of ours reads.
        Path(output_dir or self._get_output_dir(None), "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not ranks.sharded():
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = way().optimizer_state(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            self._load_optimizer(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_optimizer(self, checkpoint: str | None) -> None:
        if not ranks.sharded() or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = torch.load(Path(checkpoint, OPTIMIZER_NAME), weights_only=True)
        way().load_optimizer_state(self.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER_NAME), weights_only=True))

    def _adapted(self) -> nn.Module | None:
        """The model that PEFT made, unwrapped; None where all of a model is trained."""
        model = self.accelerator.unwrap_model(self.model)
        return model if is_adapted(model) else None

    def _load_trained(self, model: nn.Module, checkpoint: str | Path) -> None:
        stored = load_file(Path(checkpoint, TRAINED))
        mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if {name: p.shape for name, p in stored.items()} != {name: p.shape for name, p in mine.items()}:
            raise RunFailed(f"{checkpoint}: it holds other parameters than those trained here.")
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(stored[name])

    def _load_best_model(self) -> None:
        model, best = self._adapted(), self.state.best_model_checkpoint
        if best is not None and ranks.sharded():
            load_weights(cast(nn.Module, self.model), Path(best))
        elif model is None or best is None:
            super()._load_best_model()
        else:
            self._load_trained(model, best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with readable(resume_from_checkpoint):
            self._load_all(resume_from_checkpoint, model)

    def _load_all(self, resume_from_checkpoint: str, model: nn.Module | None) -> None:
        if (adapted := self._adapted()) is not None:
            self._load_trained(adapted, resume_from_checkpoint)
        elif ranks.sharded():
            load_weights(cast(nn.Module, self.model), Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        stored = read_json(Path(resume_from_checkpoint) / OWN_STATE)
        self.load_own_state(stored)
        for name in self.kept.keys() & stored:
            self.kept[name].load_state_dict(stored[name])
        self._resumed_best = _best_so_far(Path(resume_from_checkpoint))
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
        with readable(next((value for value in arguments if isinstance(value, str)), None)):
            begun = super()._init_training_state(*arguments, **keywords)
        if self._resumed_best is not None:  # Trainer forgets it where the run directory was moved
            self.state.best_model_checkpoint = str(self._resumed_best)
        return begun

    def _run_epoch(self, *arguments: Any, **keywords: Any) -> None:
        # Gone on from its last checkpoint within an epoch, Trainer would take one step too many.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **keywords)  # type: ignore[no-untyped-call]  # theirs has no types


def _best_so_far(checkpoint: Path) -> Path | None:
    """The best checkpoint when this one was written: beside it, also where both were moved, or elsewhere
    where training had gone on from another folder."""
    noted = read_json(checkpoint / TRAINER_STATE_NAME)["best_model_checkpoint"]
    if noted is None:
        return None
    beside = checkpoint.parent / Path(noted).name
    return Path(noted) if Path(noted).is_dir() and not beside.is_dir() else beside
