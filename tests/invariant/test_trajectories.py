"""What must not change the answer does not: batch shape, padding, evaluation, a resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from distil.config.schema import RolloutConfig
from distil.data.collate import collate
from distil.engine.forward import Forward, scored_and_targets
from distil.head import score
from distil.types import IGNORE_INDEX, RunFailed
from tests.training import (
    EOS,
    FAMILIES,
    METHOD_NAMES,
    VOCABULARY,
    Setup,
    build_method,
    distance,
    losses,
    random_rows,
)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_batch_shape_changes_nothing(name: str, family: str, tmp_path: Path) -> None:
    """4 x 1, 2 x 2 and 1 x 4 (rows a micro-batch x accumulation) end in the same weights, rollouts
    included."""
    runs = [
        Setup(build_method(name), tmp_path / f"{batch}", family, batch, 4 // batch).train()
        for batch in (4, 2, 1)
    ]
    start = FAMILIES[family](1)
    assert distance(runs[0].model, start) > 1e-3, "training moved the weights"
    for other in runs[1:]:
        # A logit that differs in its last bit moves AdamW's first steps by its sign where a gradient is about
        # 0.
        assert losses(other) == pytest.approx(losses(runs[0]), rel=1e-5)
        assert distance(runs[0].model, other.model) < 2e-4


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_step_follows_the_gradient_of_the_naive_loss(name: str, tmp_path: Path) -> None:
    """One SGD step equals a float64 step on full logits, written down naively from the method's terms."""
    method = build_method(name)
    arguments = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "weight_decay": 0.0}
    setup = Setup(method, tmp_path, steps=1, batch=2, accumulation=2, arguments=arguments)
    trainer = setup.trainer()
    windows = _spy_on_windows(trainer)
    trainer.train()

    student, teacher = FAMILIES["llama"](1).double(), trainer.teacher.double()
    total = torch.zeros((), dtype=torch.float64)
    for term in method.terms(0):
        values = []
        for batch in windows[0]:
            part = batch if term.sequences.value == "reference" else batch.get("rollout")
            if part is not None:
                values.append(_naive(term, student, teacher, part))
        if values and term.weight:
            total = total + term.weight * torch.cat(values).mean()
    total.backward()
    for before, after in zip(student.parameters(), trainer.model.parameters(), strict=True):
        expected = before.detach() - 0.5 * before.grad
        assert torch.allclose(after.double(), expected, atol=2e-6), "the weights moved along another gradient"
    assert losses(trainer)[0] == pytest.approx(total.item(), rel=1e-5)


def _spy_on_windows(trainer: Any) -> list[list[dict[str, Any]]]:
    windows: list[list[dict[str, Any]]] = []
    draw = trainer.get_batch_samples

    def get_batch_samples(*args: Any) -> Any:
        window, count = draw(*args)
        windows.append(window)
        return window, count

    trainer.get_batch_samples = get_batch_samples
    return windows


def _naive(term: Any, student: Any, teacher: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Score every token by the textbook, row by row, without padding."""
    values = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = int(mask.sum())
        ids, labels = ids[:length], labels[:length]
        student_TV = student(ids[None]).logits[0, :-1] / term.temperature
        with torch.no_grad():
            teacher_TV = teacher(ids[None]).logits[0, :-1] / term.temperature
        for t in range(length - 1):
            if labels[t + 1] == IGNORE_INDEX:
                continue
            q, p = student_TV[t].log_softmax(-1), teacher_TV[t].log_softmax(-1)
            values.append(_textbook(term, p, q, labels[t + 1]))
    return torch.stack(values)


def _textbook(term: Any, p: torch.Tensor, q: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    kl = {
        "cross_entropy": lambda: F.nll_loss(q, target),
        "forward_kl": lambda: F.kl_div(q, p, log_target=True, reduction="sum"),
        "reverse_kl": lambda: F.kl_div(p, q, log_target=True, reduction="sum"),
    }
    name = term.name.removeprefix("rollout_")
    if name in kl:
        return kl[name]()
    if name == "skew_reverse_kl":
        m = (0.9 * p.exp() + 0.1 * q.exp()).log()
        return F.kl_div(m, q, log_target=True, reduction="sum")
    if name != "jsd":
        assert not term.score.__module__.startswith("distil."), (
            f"{name}: no formula of it is written down here"
        )
        value: torch.Tensor = term.score(p[None], q[None])[0]  # of a plugin: its own, in float64
        return value
    m = ((p.exp() + q.exp()) / 2).log()
    return 0.5 * F.kl_div(m, p, log_target=True, reduction="sum") + 0.5 * F.kl_div(
        m, q, log_target=True, reduction="sum"
    )


def test_weights_of_cross_entropy_and_divergence(tmp_path: Path) -> None:
    """alpha = 0 is SFT whatever the divergence; alpha = 1 never looks at the reference's next token."""
    sft = Setup(build_method("sft"), tmp_path / "sft").train()
    for name in ("kd", "revkd"):
        same = Setup(build_method(name, kd_loss_weight=0.0), tmp_path / name).train()
        assert distance(sft.model, same.model) == 0

    # One scored token a row, whose value alone is changed: the divergence looks at what precedes it.
    def rows(answer: int) -> list[dict[str, Any]]:
        return [
            {"input_ids": [5, 6, i + 2, answer], "labels": [IGNORE_INDEX] * 3 + [answer], "prompt_ids": [5]}
            for i in range(8)
        ]

    for name, differs in (("kd", False), ("sft", True)):
        keys = {"kd_loss_weight": 1.0} if name == "kd" else {}
        pair = [
            Setup(build_method(name, **keys), tmp_path / f"{name}{a}", rows=rows(a), steps=2).train()
            for a in (9, 11)
        ]
        assert (distance(pair[0].model, pair[1].model) > 0) is differs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padding_side_and_amount_change_nothing(family: str) -> None:
    """Five more columns of padding, on either side, move no value and no gradient (traps 13 and 14)."""
    rows = random_rows(5)
    batch = collate(rows, EOS)
    teacher, student = FAMILIES[family](2).eval(), FAMILIES[family](1)

    def outcome(columns: int, left: bool) -> tuple[float, torch.Tensor]:
        padding = (columns, 0) if left else (0, columns)
        ids = F.pad(batch["input_ids"], padding, value=EOS)
        mask = F.pad(batch["attention_mask"], padding, value=0)
        labels = F.pad(batch["labels"], padding, value=IGNORE_INDEX)
        scored, targets = scored_and_targets(labels)
        terms = build_method("kd").terms(0)
        with torch.no_grad():
            signal = Forward(teacher)(ids, mask, scored)
        student.zero_grad()
        loss, _ = score(Forward(student)(ids, mask, scored), targets, terms, signal, VOCABULARY)
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in student.parameters()])

    value, gradient = outcome(0, left=False)
    for columns, left in ((5, False), (5, True)):
        other, other_gradient = outcome(columns, left)
        assert other == pytest.approx(value, rel=1e-5)
        assert torch.allclose(gradient, other_gradient, atol=1e-4, rtol=1e-4)


def test_first_completion_token_is_scored() -> None:
    """Only the logits that predict the first response token are changed: the loss changes (trap 1)."""
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 7, EOS, IGNORE_INDEX]])
    scored, targets = scored_and_targets(labels)
    assert scored.tolist() == [[False, True, True, False, False]]
    assert targets.tolist() == [7, EOS]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_resume_is_bitwise(name: str, tmp_path: Path) -> None:
    """With dropout and evaluations on the way: stopped at step 4 and gone on = never stopped."""
    evaluations: list[int] = []

    def evaluate(model: Any) -> dict[str, float]:
        evaluations.append(1)
        return {"nll_per_token": 1.0}

    def setup(folder: str, steps: int) -> Setup:
        arguments = {
            "save_strategy": "steps",
            "save_steps": 4,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_total_limit": 9,
        }
        return Setup(
            build_method(name),
            tmp_path / folder,
            "gpt2",
            batch=2,
            accumulation=2,
            steps=steps,
            dropout=0.1,
            arguments=arguments,
            options={"evaluate_student": evaluate},
        )

    whole = setup("whole", 8).train()
    setup("parts", 4).train()
    resumed = setup("parts", 8).train(resume=tmp_path / "parts" / "checkpoint-4")
    assert distance(whole.model, resumed.model) == 0
    assert resumed.tally.totals() == whole.tally.totals()
    assert evaluations


def test_rollouts_are_counted_and_reproducible(tmp_path: Path) -> None:
    """GKD generates in every step.

    With lambda = 1 it does not, and another seed samples other tokens (trap 53).
    """
    trainer = Setup(build_method("gkd"), tmp_path / "a").train()
    assert trainer.tally.rollouts == 12
    assert trainer.tally.rollout_tokens > 0
    off = Setup(build_method("gkd", lambda_gkd=1.0), tmp_path / "b").train()
    assert off.tally.rollouts == 0
    assert off.tokens_seen() == trainer.tally.scored_tokens
    on = Setup(build_method("gkd", lambda_gkd=0.0), tmp_path / "d").train()
    assert on.tokens_seen() == on.tally.rollout_tokens > 0, "rows that no term scores are not trained on"
    again = Setup(build_method("gkd"), tmp_path / "c").train()
    assert distance(trainer.model, again.model) == 0


def test_sampling_temperature_is_the_samplers_alone(tmp_path: Path) -> None:
    """It changes what is sampled and no loss; `temperature` is the loss's (trap 6)."""

    def weights_at(sampling_temperature: float, lambda_gkd: float) -> torch.nn.Module:
        options = {"rollouts": RolloutConfig(max_new_tokens=12, sampling_temperature=sampling_temperature)}
        method = build_method("gkd", lambda_gkd=lambda_gkd)
        folder = tmp_path / f"{sampling_temperature}-{lambda_gkd}"
        return Setup(method, folder, options=options).train().model

    assert distance(weights_at(0.3, 0.5), weights_at(1.0, 0.5)) > 0
    assert distance(weights_at(0.3, 1.0), weights_at(1.0, 1.0)) == 0


def test_generation_config_of_the_model_does_not_leak(tmp_path: Path) -> None:
    """A student whose own generation_config asks for top_k=1 and a penalty is rolled out as configured
    (trap 15)."""
    plain = Setup(build_method("gkd"), tmp_path / "plain").trainer()
    odd = Setup(build_method("gkd"), tmp_path / "odd").trainer()
    odd.model.generation_config.update(top_k=1, repetition_penalty=9.0, do_sample=False, max_new_tokens=1)
    plain.train()
    odd.train()
    assert distance(plain.model, odd.model) == 0


def test_not_a_number_stops_the_run_and_names_the_rows(tmp_path: Path) -> None:
    """Trainer itself would log loss 0.0 and go on (trap 34)."""
    trainer = Setup(build_method("sft"), tmp_path).trainer()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"step 1 is nan; training rows \["):
        trainer.train()


def test_rollouts_of_one_token_and_zero_scored_rows_train(tmp_path: Path) -> None:
    """A batch without one scored token gives 0 with a live graph, not NaN (trap 2)."""
    rows = random_rows(8)
    for row in rows[:4]:
        row["labels"] = [IGNORE_INDEX] * len(row["labels"])
    options = {"rollouts": RolloutConfig(max_new_tokens=1)}
    trainer = Setup(build_method("gkd"), tmp_path, batch=1, steps=8, rows=rows, options=options).train()
    assert all(value == value for value in losses(trainer))


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_the_edges_of_epochs(workers: int, tmp_path: Path) -> None:
    """23 rows in 4 x 2: epochs end in a smaller window.

    Gone on from within, at and after an epoch's end, as never stopped.
    """

    def setup(folder: str) -> Setup:
        arguments = {
            "save_strategy": "steps",
            "save_steps": 1,
            "save_total_limit": 99,
            "dataloader_num_workers": workers,
            "max_steps": -1,
            "num_train_epochs": 2,
        }
        return Setup(
            build_method("gkd"),
            tmp_path / folder,
            "gpt2",
            batch=4,
            accumulation=2,
            dropout=0.1,
            rows=random_rows(23),
            arguments=arguments,
        )

    whole = setup("whole").train()
    assert whole.state.global_step == 6
    for step in (2, 3, 4) if workers == 0 else (3,):
        resumed = setup(f"from {step}").train(resume=tmp_path / "whole" / f"checkpoint-{step}")
        assert distance(whole.model, resumed.model) == 0
        assert resumed.tally.totals() == whole.tally.totals()


@pytest.mark.parametrize("steps", [6, 8])
def test_gone_on_from_its_end_a_run_stays_as_it_is(steps: int, tmp_path: Path) -> None:
    """An epoch has 6 steps.

    A run that was stopped while it was evaluated takes no step and no evaluation more.
    """
    evaluations: list[int] = []

    def evaluate(model: Any) -> dict[str, float]:
        evaluations.append(1)
        return {"nll_per_token": 1.0}

    arguments = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    setup = Setup(
        build_method("gkd"),
        tmp_path,
        steps=steps,
        arguments=arguments,
        options={"evaluate_student": evaluate},
    )
    whole = setup.train()
    count = len(evaluations)
    again = setup.train(resume=tmp_path / f"checkpoint-{steps}")
    assert again.state.global_step == steps
    assert distance(whole.model, again.model) == 0
    assert again.tally.totals() == whole.tally.totals()
    assert len(evaluations) == count


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path: Path) -> None:
    """load_best_model_at_end gives the weights of the best evaluation, also when the run only comes back to
    its end, in another place."""
    scores = iter([3.0, 1.0, 2.0, 4.0])
    seen: list[list[torch.Tensor]] = []

    def evaluate(model: Any) -> dict[str, float]:
        seen.append([p.detach().clone() for p in model.parameters()])
        return {"nll_per_token": next(scores)}

    arguments = {
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
    }

    def setup(folder: str) -> Setup:
        return Setup(
            build_method("kd"),
            tmp_path / folder,
            steps=8,
            arguments=arguments,
            options={"evaluate_student": evaluate},
        )

    trainer = setup("run").train()
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), seen[1], strict=True))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint-4", "checkpoint-8"}

    (tmp_path / "run").rename(tmp_path / "moved")
    again = setup("moved").train(resume=tmp_path / "moved" / "checkpoint-8")
    assert all(torch.equal(p, q) for p, q in zip(again.model.parameters(), seen[1], strict=True))

    shutil.rmtree(tmp_path / "moved" / "checkpoint-4")
    with pytest.raises(RunFailed, match="checkpoint-4"):
        setup("moved").train(resume=tmp_path / "moved" / "checkpoint-8")


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_student_with_more_ids_than_the_teacher(name: str, tmp_path: Path) -> None:
    """Padded embeddings (trap 8): the student never hands the teacher an id that it does not have."""
    setup = Setup(build_method(name), tmp_path, options={"rollouts": RolloutConfig(max_new_tokens=40)})
    trainer = setup.trainer()
    trainer.model.resize_token_embeddings(4 * VOCABULARY, mean_resizing=False)
    trainer.train()
    assert all(value == value for value in losses(trainer))


def test_checkpointing_activations_changes_nothing(tmp_path: Path) -> None:
    """Also where the student generates, with its cache (trap 16)."""
    plain = Setup(build_method("gkd"), tmp_path / "plain").train()
    saving = Setup(
        build_method("gkd"), tmp_path / "saving", arguments={"gradient_checkpointing": True}
    ).train()
    assert saving.model.is_gradient_checkpointing
    assert distance(plain.model, saving.model) < 1e-6


def test_broken_weights_are_no_checkpoint(tmp_path: Path) -> None:
    """A step may leave NaN though its loss was a number: gone on from, such a checkpoint fails for ever."""
    arguments = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e39, "max_grad_norm": 0.0}
    with pytest.raises(RunFailed, match="Step 1 left weights"):
        Setup(build_method("sft"), tmp_path, steps=1, arguments=arguments).train()
    assert not list(tmp_path.glob("checkpoint-*"))
