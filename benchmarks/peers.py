"""The trainers that benchmarks/trainers.py measures: ours, a bare loop over our own head, and the peers.

Each is a function of a world, a task and a clock that builds all it needs and gives back what starts the
training. The settings that all share stand in ``World.arguments``; a peer's own defaults that would change
the work (bf16 and gradient checkpointing in TRL) are set to ours.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from heads import LENGTH, PROMPT, build
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments

from distil.config.schema import RolloutConfig
from distil.data.collate import collate
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.rollouts import generate, uniforms
from distil.engine.trainer import DistillationTrainer
from distil.head import score
from distil.methods.base import METHODS
from distil.types import IGNORE_INDEX

NEW = 64
"""Tokens of a rollout."""
LEARNING_RATE, WEIGHT_DECAY, CLIP, SEED = 1e-3, 0.01, 1.0, 0
PEERS = Path(sys.prefix) / "peers"
"""Where ``make bench-peers`` puts llm-distil: it has the import name of a package of ours."""


@dataclass(frozen=True)
class Task:
    """Work that is the same for all who do it: an objective, and which tokens it scores."""

    method: str
    keys: dict[str, float]
    prompt: int = PROMPT
    """Leading tokens that are not scored."""
    on_policy: bool = False


TASKS = {
    "JSD": Task("gkd", {"lambda_gkd": 1.0}),
    "JSD on-policy": Task("gkd", {"lambda_gkd": 0.0}, on_policy=True),
    "KD": Task("kd", {"temperature": 2.0, "kd_loss_weight": 0.5}, prompt=0),
    "RevKD": Task("revkd", {"temperature": 2.0, "kd_loss_weight": 0.5}, prompt=0),
}
"""KD and RevKD score the prompt too: llm-distil has no way to leave it out."""


class Clock(TrainerCallback):
    """CPU time at the end of each step, the losses that were logged, and the first sequences trained on."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []
        self.ids_BT: Tensor | None = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After the optimizer's step."""
        self.times.append(time.process_time())

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """The loss of the step, as the trainer reports it."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def watch(self, student: Any) -> None:
        """Keep the first batch that passes through the student's body with a graph."""

        def see(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.ids_BT is None and torch.is_grad_enabled():
                self.ids_BT = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).clone()

        student.model.register_forward_pre_hook(see, with_kwargs=True)


@dataclass
class World:
    """Models and data, the same for every trainer."""

    vocabulary: int
    batch: int
    steps: int
    folder: Path
    teacher: Any = field(init=False)
    student: Any = field(init=False)
    rows: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        bench = build(self.vocabulary, self.batch, "cpu")
        self.teacher, self.student = bench.teacher, bench.student
        # Nothing ends a rollout early.
        self.student.generation_config.eos_token_id = None
        chance = torch.Generator().manual_seed(SEED)
        size = (self.steps * self.batch, LENGTH)
        self.rows = torch.randint(self.vocabulary, size, generator=chance).tolist()

    def arguments(self) -> dict[str, Any]:
        """Keys of TrainingArguments; rows come in their order, so that all see the same first batch."""
        return {
            "output_dir": str(self.folder),
            "per_device_train_batch_size": self.batch,
            "max_steps": self.steps,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "weight_decay": WEIGHT_DECAY,
            "max_grad_norm": CLIP,
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "seed": SEED,
        }

    def labelled(self, prompt: int) -> list[dict[str, Any]]:
        """Our rows."""
        return [
            {
                "input_ids": ids,
                "labels": [IGNORE_INDEX] * prompt + ids[prompt:],
                "prompt_ids": ids[:PROMPT],
            }
            for ids in self.rows
        ]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A word an id. The end has an id that the models lack, so it is never sampled."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = {f"w{i}": i for i in range(self.vocabulary)} | {"<end>": self.vocabulary}
        inner = Tokenizer(models.WordLevel(words, unk_token="<end>"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


Start = Callable[[], object]


def _method(task: Task) -> Any:
    entry = METHODS.get(task.method)
    assert entry.config is not None
    return entry.factory(entry.config(**task.keys))


def ours(world: World, task: Task, clock: Clock) -> Start:
    """DistillationTrainer."""
    trainer = DistillationTrainer(
        _method(task),
        world.student,
        world.teacher,
        world.labelled(task.prompt),
        TrainingArguments(**world.arguments(), remove_unused_columns=False),
        rollouts=RolloutConfig(max_new_tokens=NEW),
        eos_ids=(),
        pad_id=0,
        shared_vocabulary=world.vocabulary,
    )
    trainer.add_callback(clock)
    return trainer.train


def bare_loop(world: World, task: Task, clock: Clock) -> Start:
    """The least that trains through our head: no Trainer."""
    terms = [term for term in _method(task).terms(0) if term.weight]
    rows, student = world.labelled(task.prompt), world.student

    def rolled(step: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        prompts = [row["prompt_ids"] for row in rows]
        noise = uniforms(SEED, step, range(len(rows)), NEW)
        new = generate(
            student, prompts, RolloutConfig(max_new_tokens=NEW), eos_ids=(), pad_id=0, uniforms=noise
        )
        return [
            {"input_ids": p + r.ids, "labels": [IGNORE_INDEX] * len(p) + r.ids}
            for p, r in zip(prompts, new, strict=True)
        ]

    def start() -> None:
        parameters = list(student.parameters())
        groups = [  # Trainer's: norms do not decay
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        forward, taught = Forward(student.train()), Forward(world.teacher)

        def step(at: int) -> Tensor:  # a function, so that nothing of a step outlives it
            drawn = rows[at * world.batch : (at + 1) * world.batch]
            batch = collate(rolled(at, drawn) if task.on_policy else drawn, 0)
            scored_BT, targets_N = scored_and_targets(batch["labels"])
            ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
            with torch.no_grad():
                teacher = taught(ids_BT, mask_BT, scored_BT)
            signal = forward(ids_BT, mask_BT, scored_BT)
            loss = score(signal, targets_N, terms, teacher, world.vocabulary)[0] / len(targets_N)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        for at in range(world.steps):
            clock.losses.append(float(step(at)))
            clock.on_step_end()

    return start


def trl_gkd(world: World, task: Task, clock: Clock) -> Start:
    """TRL's GKDTrainer; its lmbda is the share of the student's own sequences."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def collator(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collate([{k: row[k] for k in ("input_ids", "labels")} for row in rows], 0)
        prompts = torch.tensor([row["prompt_ids"] for row in rows])
        return {**batch, "prompts": prompts, "prompt_attention_mask": torch.ones_like(prompts)}

    config = GKDConfig(
        **world.arguments(),
        lmbda=1.0 if task.on_policy else 0.0,
        beta=0.5,
        temperature=1.0,
        max_new_tokens=NEW,
        bf16=False,
        gradient_checkpointing=False,
    )
    return GKDTrainer(
        world.student,
        world.teacher,
        config,
        data_collator=collator,
        train_dataset=Dataset.from_list(world.labelled(task.prompt)),
        processing_class=world.tokenizer(),
        callbacks=[clock],
    ).train


def trl_distillation(world: World, _task: Task, clock: Clock) -> Start:
    """TRL's DistillationTrainer; on-policy always."""
    from datasets import Dataset
    from trl import DistillationConfig
    from trl import DistillationTrainer as TRLDistillationTrainer

    config = DistillationConfig(
        **world.arguments(),
        beta=0.5,
        temperature=1.0,
        max_completion_length=NEW,
        shuffle_dataset=False,
        bf16=False,
        gradient_checkpointing=False,
    )
    prompts = [{"prompt": " ".join(f"w{i}" for i in ids[:PROMPT])} for ids in world.rows]
    return TRLDistillationTrainer(
        world.student,
        world.teacher,
        config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=world.tokenizer(),
        callbacks=[clock],
    ).train


def llm_distil(world: World, task: Task, clock: Clock) -> Start:
    """llm-distil from PyPI. For a process of its own: from here on the import name is the peer's."""
    sys.path.insert(0, str(PEERS))
    assert "llm_distil" not in sys.modules
    peer = importlib.import_module("llm_distil")
    inner = importlib.import_module("llm_distil.kd_trainer")
    # Its train() has no way to hand over a callback.
    inner._DistillationTrainer = partial(inner._DistillationTrainer, callbacks=[clock])
    world.tokenizer().save_pretrained(world.folder)
    arguments = world.arguments()
    config = peer.DistillationConfig(
        teacher_model_name=str(world.folder),
        student_model_name=str(world.folder),
        **task.keys,
        batch_size=arguments.pop("per_device_train_batch_size"),
        warmup_steps=0,
        save_checkpoints=False,
        report_to=None,
        **{k: arguments.pop(k) for k in ("learning_rate", "weight_decay", "max_grad_norm", "logging_steps")},
        **{k: arguments.pop(k) for k in ("output_dir", "seed")},
    )
    for ours_too in ("save_strategy", "report_to"):
        del arguments[ours_too]
    kind = {"kd": peer.KnowledgeDistillation, "revkd": peer.ReverseKnowledgeDistillation}[task.method]
    distiller = kind(world.teacher, world.student, config)
    rows = [{"input_ids": ids} for ids in world.rows]
    return partial(distiller.train, rows, **arguments)


def _jsd(p: Tensor, q: Tensor, _targets: Tensor) -> Tensor:
    m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    return (p.exp() * (p - m) + q.exp() * (q - m)).sum() / 2


FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda _p, q, targets: -q.gather(-1, targets[:, None]).sum(),
    "forward_kl": lambda p, q, _: (p.exp() * (p - q)).sum(),
    "reverse_kl": lambda p, q, _: (q.exp() * (q - p)).sum(),
    "jsd": _jsd,
}
"""Of the log-probabilities of teacher and student and the targets; a sum over tokens."""


def expected(world: World, task: Task, ids_BT: Tensor, past_the_end: bool = False) -> float:
    """The loss of these sequences, written down naively: whole logits, a row at a time, mean over tokens.

    ``past_the_end``: divergences count what is said after the last token too.
    """
    terms = [term for term in _method(task).terms(0) if term.weight]
    total, first = 0.0, max(task.prompt, 1)
    for ids_T in ids_BT:
        with torch.no_grad():
            student_TV = world.student(input_ids=ids_T[None]).logits[0, first - 1 :]
            teacher_TV = world.teacher(input_ids=ids_T[None]).logits[0, first - 1 :]
        for term in terms:
            end = None if past_the_end and term.needs_teacher else -1
            q, p = (x[:end].div(term.temperature).log_softmax(-1) for x in (student_TV, teacher_TV))
            summed = FORMULAS[term.name.removeprefix("rollout_")](p, q, ids_T[first:])
            total += term.weight * float(summed) / (len(ids_BT) * len(q))
    return total
