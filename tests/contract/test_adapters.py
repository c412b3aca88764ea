"""What every adapter must hold to under every method, the user's own included (DISTIL_PLUGINS names them)."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.adapters.base import ADAPTERS
from distil.config.schema import PeftConfig, RolloutConfig, TeacherConfig
from distil.config.validate import validate
from distil.engine.anatomy import is_adapted
from distil.engine.rollouts import generate
from distil.results import keep_student, parameter_counts
from distil.types import InputError
from tests.adapters import (
    CASES,
    WIDTH,
    adapter_of,
    experiment,
    frozen_state,
    load,
    peft_config,
    save_bases,
    trained_names,
    trained_state,
    word_tokenizer,
)
from tests.contract.test_methods import OURS as OUR_METHODS
from tests.training import EOS, FAMILIES, METHOD_NAMES, Setup, build_method, losses

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(ADAPTERS.entries())
OURS = [name for name in NAMES if ADAPTERS.get(name).factory.__module__.startswith("distil.adapters.")]
PROMPT = [5, 9, 31, 7, 12, 40, 2]
NEW = 8

CHECKPOINTING = {"trainer.gradient_checkpointing", "trainer.activation_checkpointing"}
"""Two names of one thing."""
REFUSED: dict[str, set[str]] = {
    "none": {"model.teacher.path=self"},
    "lora": set(),
    "dora": set(),
    "qlora": set(),
    "prefix": CHECKPOINTING,
    "prompt": set(),
    "ptuning": set(),
    "ia3": set(),
}
"""All that an adapter does not go with, under any method; a plugin says in its class what it refuses."""


# ---- names and configs


@pytest.mark.parametrize("name", OURS)
def test_one_name(name: str) -> None:
    """File stem = registry name = YAML stem = the config's own name."""
    entry = ADAPTERS.get(name)
    assert entry.factory.__module__.rpartition(".")[2] == name
    assert (ROOT / "conf" / "peft" / f"{name}.yaml").is_file()
    assert entry.config is not None
    assert entry.config().name == name
    assert issubclass(entry.config, PeftConfig)


def test_what_is_refused_is_this_and_no_more(tmp_path: Path) -> None:
    """Method x adapter x (plain, checkpointing, self as teacher): the list cannot grow in silence."""
    refused: dict[tuple[str, str], str] = {}
    for method in OUR_METHODS:
        for case, (name, _) in CASES.items():
            plain = experiment(tmp_path, peft_config(case))
            plain = replace(
                plain,
                method=build_method(method).config,
                model=replace(plain.model, teacher=TeacherConfig("somewhere")),
            )
            changes: dict[str, Any] = {
                "nothing": {},
                **{
                    f"trainer.{key}": {"trainer": replace(plain.trainer, **{key: True})}
                    for key in ("gradient_checkpointing", "activation_checkpointing")
                },
                "model.teacher.path=self": {"model": replace(plain.model, teacher=TeacherConfig("self"))},
            }
            for what, change in changes.items():
                try:
                    validate(replace(plain, **change))
                except InputError as error:
                    refused[name, what] = str(error)
    for case, (name, _) in CASES.items():
        adapter = adapter_of(case)
        said = set() if adapter.gradient_checkpointing else CHECKPOINTING
        said |= set() if adapter.keeps_base else {"model.teacher.path=self"}
        assert {what for who, what in refused if who == name} == said, name
        if name in OURS:
            assert said == REFUSED[name], name
    for (name, what), message in refused.items():
        assert f"peft={name}" in message
        assert what in message


# ---- the grid: method x adapter x family


@dataclass(frozen=True)
class Cell:
    """One trained student and what it says."""

    losses: list[float]
    adapted: bool
    trained: set[str]
    moved: set[str]
    """Parameters and buffers whose bytes training changed."""
    logits: Tensor
    written: list[int]
    product: Path


class Grid:
    """Every cell trained once, where a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bases = save_bases(folder / "bases")
        self.cells: dict[tuple[str, str, str], Cell] = {}

    def cell(self, method: str, case: str, family: str) -> Cell:
        """Three steps of ``method`` through ``case``, evaluated in memory and saved."""
        key = (method, case, family)
        if key not in self.cells:
            self.cells[key] = self._train(self.folder / "-".join(key), *key)
        return self.cells[key]

    def _train(self, folder: Path, method: str, case: str, family: str) -> Cell:
        student = load(self.bases / family, case, dropout=True)
        trained, frozen, start = trained_names(student), frozen_state(student), trained_state(student)
        trainer = Setup(build_method(method), folder, family, student=lambda: student).train()
        now = frozen_state(student)
        moved = {name for name, before in frozen.items() if not torch.equal(before, now[name])}
        moved |= {name for name, p in trained_state(student).items() if not torch.equal(p, start[name])}
        assert now.keys() == frozen.keys()
        # Trainer switches the cache off for good where it trains; the run switches it on for the product.
        student.config.use_cache = True
        keep_student(folder, student, word_tokenizer(), "A student", "python run.py", _recipe(case))
        with torch.no_grad():
            logits = student.eval()(input_ids=torch.tensor([PROMPT])).logits
        written = generate(
            student,
            [PROMPT, PROMPT[:2]],
            RolloutConfig(max_new_tokens=NEW),
            eos_ids=[],
            pad_id=EOS,
            uniforms=None,
        )
        return Cell(
            losses(trainer), is_adapted(student), trained, moved, logits, written[0].ids, folder / "student"
        )


def _recipe(case: str) -> dict[str, Any]:
    return {"peft": CASES[case][0], "model": {"path": "here"}, "kept_layers": None, "base_print": ""}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    # It announces every product that it makes in float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return Grid(tmp_path_factory.mktemp("grid"))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_trains_its_own_parameters_and_no_other(method: str, case: str, family: str, grid: Grid) -> None:
    """Three steps: the loss is a number, all that is trained moved, all else is the same to the bit."""
    cell = grid.cell(method, case, family)
    assert len(cell.losses) == 3
    assert all(math.isfinite(loss) and loss > 0 for loss in cell.losses)
    assert cell.adapted is adapter_of(case).adapts
    assert cell.trained
    # A full model's tied head has a second name; nothing else may stand on either side alone.
    tied = set() if cell.adapted else {"lm_head.weight (state)"}
    assert cell.moved - tied == cell.trained
    assert len(cell.written) == NEW


def test_every_product_reloads_in_a_fresh_process(grid: Grid, tmp_path: Path) -> None:
    """By transformers and PEFT, without this project: the same logits, and generation writes the same."""
    cells = []
    for method in METHOD_NAMES:
        for case in CASES:
            for family in FAMILIES:
                cell = grid.cell(method, case, family)
                quantization = dict(adapter_of(case).quantization or {})
                if quantization.get("bnb_4bit_compute_dtype") == "auto":
                    quantization["bnb_4bit_compute_dtype"] = "float32"
                cells.append(
                    {
                        "name": f"{method} {case} {family}",
                        "base": str(grid.bases / family),
                        "product": str(cell.product),
                        "adapted": cell.adapted,
                        "quantization": quantization,
                        "prompt": PROMPT,
                        "new_tokens": NEW,
                    }
                )
    (tmp_path / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("reload_products.py")),
            str(tmp_path / "cells.json"),
            str(tmp_path / "answers.pt"),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    answers = torch.load(tmp_path / "answers.pt")
    apart, other = {}, {}
    for name, answer in answers.items():
        method, case, family = name.split()
        cell = grid.cell(method, case, family)
        if not torch.equal(answer["logits"], cell.logits):
            apart[name] = float((answer["logits"] - cell.logits).abs().max())
        if answer["written"] != cell.written:
            other[name] = (answer["written"], cell.written)
    assert not apart
    assert not other


# ---- where it starts


@pytest.mark.parametrize("case", CASES)
def test_it_starts_from_the_seed_alone(case: str, grid: Grid) -> None:
    """The same start whatever the global random state, which is left as it was."""
    torch.manual_seed(1)
    first = load(grid.bases / "llama", case)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = load(grid.bases / "llama", case)
    assert torch.equal(torch.get_rng_state(), state)
    start = trained_state(first)
    for name, parameter in trained_state(again).items():
        assert torch.equal(parameter, start[name])
    other = trained_state(load(grid.bases / "llama", case, seed=7))
    assert apart(start, other) is apart(*(wrapped_by_hand(grid, case, seed) for seed in (1, 2)))


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether any trained parameter is another: factors of 1, and a student itself, are not drawn."""
    return any(not torch.equal(other[name], one[name]) for name in one)


def wrapped_by_hand(grid: Grid, case: str, seed: int) -> dict[str, Tensor]:
    """Where the adapter starts by itself, out of the global random state."""
    base = load(grid.bases / "llama", "none")
    torch.manual_seed(seed)
    return trained_state(adapter_of(case).wrap(base, word_tokenizer()))


@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_the_parameters(case: str, grid: Grid) -> None:
    """Trained and whole, against a sum over the parameters (4 bits count as if they lay one by one)."""
    student = load(grid.bases / "gpt2", case)
    counts = parameter_counts(None, student)
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    base = FAMILIES["gpt2"](1, width=WIDTH).num_parameters()
    assert counts["trainable"] == trained
    assert counts["student"] == base + (trained if is_adapted(student) else 0)
