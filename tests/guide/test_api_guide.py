"""Every Python block of the API guide runs as it is written, alone."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from tests.guide.blocks import Block, blocks_of, mended, open_names
from tests.guide.world import build, supply

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("DISTIL_SHARED_DATA") or ROOT.parent / "shared" / "data").resolve()
GUIDE = DATA.parent / "api-guide.md"

BLOCKS = blocks_of(GUIDE) if GUIDE.is_file() else []
RUNNABLE = [block for block in BLOCKS if not block.is_signature]
pytestmark = pytest.mark.skipif(not BLOCKS, reason=f"no API guide at {GUIDE}")

SLIPS = {"evaluation_strategy": 1, "map without batched": 1, "names": 3, "fp16": 1, "cuda": 1}
"""What may be mended, and in how many blocks it stands."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    build(folder)
    return folder


@pytest.fixture
def world(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, in which the hub's names are folders."""
    for entry in hub.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    _leave_wandb()  # it has read its settings where other tests of this process were at work
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield tmp_path
    _leave_wandb()


def _leave_wandb() -> None:
    """End a run that is open, which listens to what is written to stderr, and forget the settings."""
    if wandb.run is not None:
        wandb.finish()
    wandb.teardown()


def run(block: Block) -> dict[str, Any]:
    """Run ``block`` alone, with the names that it leaves open; its names afterwards."""
    source, _ = mended(block.source, gpu=torch.cuda.is_available())
    names = supply(open_names(source))
    exec(compile(source, f"guide block {block.number}", "exec"), names)
    return names


def one(text: str) -> Block:
    """The one block that holds ``text``."""
    found = [block for block in RUNNABLE if text in block.source]
    assert len(found) == 1, text
    return found[0]


def test_the_guide_has_the_blocks_and_the_slips_that_we_know() -> None:
    assert (len(RUNNABLE), len(BLOCKS)) == (27, 29)
    met = [slip for block in RUNNABLE for slip in mended(block.source, gpu=False)[1]]
    assert {slip: met.count(slip) for slip in met} == SLIPS


ALONE = [
    pytest.param(block, id=block.label, marks=[pytest.mark.slow] if "load_dataset(" in block.source else [])
    for block in RUNNABLE
    if "base_config" not in block.source
]
"""All but Example 2, whose three trainings have a test of their own. Example 1 takes 300 steps."""


@pytest.mark.parametrize("block", ALONE)
def test_block_runs_as_written(block: Block, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(block)
    for line in block.source.splitlines():
        saved = re.search(r'save_student\("(.*)"\)', line)
        if saved:
            assert (world / saved[1] / "model.safetensors").is_file()
    if 'report_to="wandb"' in block.source:
        assert list(world.glob("wandb/offline-run-*")), "the tracker of the user's own arguments was not used"
    if "print(f" in block.source:
        assert re.search(r"(Perplexity|ROUGE-L): \d", capsys.readouterr().out)
    assert names


def test_example_2_tells_three_methods_apart_and_each_learns(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_distil import compute_perplexity

    names = run(one("base_config"))
    open_before = supply({"student", "tokenizer", "eval_dataset"})
    untouched = compute_perplexity(
        open_before["student"], open_before["eval_dataset"], open_before["tokenizer"]
    )
    perplexities = list(names["results"]["Perplexity"])
    assert len(set(perplexities)) == 3
    assert max(perplexities) < untouched
    assert "RevKD" in capsys.readouterr().out


def test_what_the_comments_of_the_guide_say_comes_out(world: Path) -> None:
    rouge = run(one("rouge_scores = compute_rouge"))["rouge_scores"]
    assert set(rouge) == {"rouge1", "rouge2", "rougeL"}
    bleu = run(one("bleu_scores = compute_bleu"))["bleu_scores"]
    assert {"bleu", "precisions", "brevity_penalty", "length_ratio"} == set(bleu)
    tracked = run(one("MetricTracker()"))
    assert tracked["avg_loss"] == pytest.approx(2.4)
    assert tracked["metrics"] == {"train_loss": pytest.approx(2.4)}
    loaded = run(one("config.save("))
    assert loaded["loaded_config"] == loaded["config"]


def test_the_base_class_has_the_signatures_of_the_guide() -> None:
    from llm_distil import BaseDistillation

    (block,) = [block for block in BLOCKS if "class BaseDistillation" in block.source]
    promised = re.findall(r"def (\w+)\((.*)\)", block.source)
    assert len(promised) == 5
    for name, arguments in promised:
        theirs: dict[str, Any] = {}
        exec(f"def f({arguments}): ...", theirs)
        ours = list(inspect.signature(getattr(BaseDistillation, name)).parameters.values())
        for expected, real in zip(inspect.signature(theirs["f"]).parameters.values(), ours, strict=False):
            assert (real.name, real.default) == (expected.name, expected.default)
        rest = ours[len(inspect.signature(theirs["f"]).parameters) :]
        assert all(parameter.default is not parameter.empty for parameter in rest), name


def test_the_config_has_the_fields_types_and_defaults_of_the_guide() -> None:
    from llm_distil import DistillationConfig

    (block,) = [block for block in BLOCKS if "class DistillationConfig" in block.source]
    theirs: dict[str, Any] = {"dataclass": dataclass}
    exec(block.source, theirs)
    promised = fields(theirs["DistillationConfig"])
    ours = {field.name: field for field in fields(DistillationConfig)}
    assert [field.name for field in promised[:2]] == [field.name for field in fields(DistillationConfig)[:2]]
    for field in promised:
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        assert ours[field.name].type == kind
        assert ours[field.name].default == field.default, field.name
        assert (ours[field.name].default is MISSING) == (field.default is MISSING)
    table = re.findall(
        r"^\| `(\w+)` \| (?:int|float) \| ([\d.e-]+) \|", GUIDE.read_text("utf-8"), re.MULTILINE
    )
    assert len(table) == 9
    for name, default in table:
        assert float(ours[name].default) == float(default)
