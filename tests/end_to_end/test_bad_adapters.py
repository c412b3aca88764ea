"""Bad adapters, through the real command: exit code 2, one message that says the way out, nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Command, environment
from tests.end_to_end.test_bad_models import check_refused, replaced

SELF = "model.teacher.path=self"
INSTALL = "[adapters]'"


def check_nothing_left(done: subprocess.CompletedProcess[str], output: Path, *said: str) -> None:
    """Refused, saying all of ``said``, and without one file in ``output``."""
    check_refused(done, output, *said)
    assert not [path for path in output.rglob("*") if path.is_file()]


# ---- answered before torch is imported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["peft=lroa"], ["peft", "lroa", "lora", "qlora", "prefix"]),
        (["peft=lora", "peft.r=0"], ["peft.r", "at least 1", "got 0"]),
        pytest.param(["peft=lora", "peft.rank=4"], ["rank", "peft.r"], marks=pytest.mark.slow),
        pytest.param(
            ["peft=lora", "peft.lora_dropout=1"],
            ["peft.lora_dropout", "[0, 1)", "1.0"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=lora", "peft.bias=some"],
            ["peft.bias=some", "all, lora_only, none"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=lora", "peft.init_lora_weights=zero"],
            ["peft.init_lora_weights=zero", "pissa"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["peft=qlora", "peft.bits=3"], ["peft.bits", "4 or 8", "got 3"], marks=pytest.mark.slow),
        pytest.param(
            ["peft=qlora", "peft.bnb_4bit_quant_type=nf8"],
            ["peft.bnb_4bit_quant_type=nf8", "nf4"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=qlora", "peft.init_lora_weights=pissa"],
            ["peft.init_lora_weights=pissa", "peft=lora"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=qlora", "model.student.init=random"],
            ["peft=qlora", "model.student.init=random"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=qlora", "peft.bits=8", "peft.bnb_4bit_quant_type=fp4"],
            ["peft.bnb_4bit_quant_type", "peft.bits=8", "peft.bits=4"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=prompt", "peft.num_virtual_tokens=0"],
            ["peft.num_virtual_tokens", "at least 1"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=prompt", "peft.prompt_tuning_init=TEXT"],
            ["peft.prompt_tuning_init_text"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["peft=ia3", "peft.target_modules=[v_proj]"],
            ["peft.target_modules", "peft.feedforward_modules"],
            marks=pytest.mark.slow,
        ),
        (
            ["peft=lora", "peft.target_modules='q_proj, v_proj'"],
            ["peft.target_modules=q_proj, v_proj", "[q_proj,v_proj]"],
        ),
        (
            ["peft=prefix", "trainer.gradient_checkpointing=true"],
            ["trainer.gradient_checkpointing=true", "peft=prefix", "false"],
        ),
        ([SELF], [SELF, "peft=none", "peft=lora"]),
        pytest.param(
            [SELF, "peft=lora", "peft.init_lora_weights=pissa"],
            [SELF, "peft.init_lora_weights=true"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [SELF, "peft=dora", "peft.init_lora_weights=olora"],
            [SELF, "peft.init_lora_weights=true"],
            marks=pytest.mark.slow,
        ),
        ([SELF, "peft=lora", "peft.bias=all"], [SELF, "peft.bias=none"]),
        (
            [SELF, "peft=lora", "model.teacher.quantization=nf4"],
            [SELF, "model.teacher.quantization"],
        ),
        (["model.teacher.quantization=gptq"], ["model.teacher.quantization=gptq", "nf4", "int8"]),
        pytest.param(
            ["model.student.adapter=somewhere"],
            ["model.student.adapter=somewhere", "peft=none"],
            marks=pytest.mark.slow,
        ),
        (
            ["peft=ptuning", "model.student.adapter=somewhere"],
            ["model.student.adapter=somewhere", "peft=ptuning", "peft=prompt"],
        ),
        (
            ["peft=lora", "model.student.adapter=somewhere"],
            ["model.student.adapter=somewhere", "no such folder", "adapter_config.json"],
        ),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else "",
)
def test_keys(
    arguments: list[str], said: list[str], small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """What the keys alone tell."""
    given = small_arguments
    if SELF in arguments:
        given = [word for word in given if not word.startswith("model.teacher.path=")]
    done = run_command(*given, *arguments, f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", *said)


@pytest.mark.parametrize(
    ("package", "arguments", "key"),
    [
        ("peft", ["peft=lora"], "peft=lora"),
        ("bitsandbytes", ["peft=qlora"], "peft=qlora"),
        pytest.param(
            "bitsandbytes",
            ["model.teacher.quantization=int8"],
            "model.teacher.quantization=int8",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_packages_that_are_not_installed(
    package: str, arguments: list[str], key: str, small_arguments: list[str], tmp_path: Path
) -> None:
    """A Python that does not find them, as after a plain `pip install distil-runner`."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *more: "
        f"None if name.partition('.')[0] == {package!r} else find(name, *more)\n",
        encoding="utf-8",
    )
    variables = environment() | {"PYTHONPATH": str(tmp_path / "without")}
    absent = subprocess.run(
        [sys.executable, "-c", f"import {package}"],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in absent.stderr
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run.py"),
            *small_arguments,
            *arguments,
            f"output_dir={tmp_path / 'out'}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=variables,
    )
    check_nothing_left(done, tmp_path / "out", key, f"the package {package}", INSTALL)


@pytest.mark.parametrize("peft", ["qlora", pytest.param("none", marks=pytest.mark.slow)])
def test_a_student_quantised_already(
    peft: str, small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Its config.json says so; the weights need not be read."""
    folder = tmp_path / "packed"
    shutil.copytree(small_pair / "student", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, f"peft={peft}", f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", f"model.student.path={folder}", "gptq", "peft=lora")


@pytest.mark.slow
def test_a_teacher_quantised_already(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Its config.json says so: it is not quantised again, nor is the key passed over."""
    folder = tmp_path / "packed"
    shutil.copytree(small_pair / "teacher", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = replaced(small_arguments, "model.teacher.path", folder)
    key = "model.teacher.quantization=nf4"
    done = run_command(*arguments, key, f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", key, f"model.teacher.path={folder}", "awq", "null")


# ---- answered when the student is there


def test_targets_that_match_nothing(small_arguments: list[str], run_command: Command, tmp_path: Path) -> None:
    """What could be matched is listed."""
    done = run_command(
        *small_arguments, "peft=lora", "peft.target_modules=[c_attn]", f"output_dir={tmp_path / 'out'}"
    )
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    check_nothing_left(done, tmp_path / "out", "peft.target_modules=[c_attn]", *names, "all-linear")


@pytest.mark.slow
def test_targets_that_are_no_matrix(small_arguments: list[str], run_command: Command, tmp_path: Path) -> None:
    done = run_command(
        *small_arguments, "peft=lora", "peft.target_modules=[mlp]", f"output_dir={tmp_path / 'out'}"
    )
    check_nothing_left(done, tmp_path / "out", "peft.target_modules=[mlp]", "q_proj")


def _student(folder: Path, small_pair: Path, family: str, **shape: object) -> Path:
    """A tiny model of another family, with the pair's tokenizer."""
    import transformers

    shutil.copytree(small_pair / "student", folder)
    config = getattr(transformers, f"{family}Config")(vocab_size=64, eos_token_id=1, pad_token_id=1, **shape)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_ia3_on_a_family_without_default_targets(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    folder = _student(
        tmp_path / "other",
        small_pair,
        "Olmo2",
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, "peft=ia3", f"output_dir={tmp_path / 'out'}")
    said = ["peft=ia3", "olmo2", "peft.target_modules=", "peft.feedforward_modules=", "k_proj", "down_proj"]
    check_nothing_left(done, tmp_path / "out", *said)


@pytest.mark.slow
@pytest.mark.parametrize("peft", ["prompt", "prefix"])
def test_a_prompt_longer_than_the_context(
    peft: str, small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    folder = _student(tmp_path / "short", small_pair, "GPT2", n_embd=16, n_layer=1, n_head=1, n_positions=20)
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, f"peft={peft}", f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", "peft.num_virtual_tokens=20", "20 positions", "fewer than 20")


@pytest.mark.slow
def test_rows_that_do_not_fit_behind_the_prompt(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The table of positions would hold them alone, not behind 20 learnt positions."""
    folder = _student(tmp_path / "short", small_pair, "GPT2", n_embd=16, n_layer=1, n_head=1, n_positions=30)
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, "peft=prompt", f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", "data.max_length=10", "model.student has 10 positions")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["peft=qlora"], ["model.student.path=", "(16)", "peft.bits=8", "peft=lora"]),
        pytest.param(
            ["model.teacher.quantization=nf4"],
            ["model.teacher.quantization=nf4", "(24)", "int8", "null"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_widths_that_blocks_do_not_divide(
    arguments: list[str], said: list[str], small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The pair is 24 and 16 wide."""
    done = run_command(*small_arguments, *arguments, f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", "64", *said)


@pytest.mark.slow
def test_an_adapter_of_another_base_or_rank(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A run's own product: continued where it fits, refused with both named where it does not."""
    steps = replaced(small_arguments, "trainer.max_steps", 1)
    done = run_command(*steps, "peft=lora", f"output_dir={tmp_path / 'made'}")
    assert done.returncode == 0, done.stderr
    (product,) = tmp_path.glob("made/**/student")
    adapter = f"model.student.adapter={product}"

    done = run_command(*steps, "peft=lora", adapter, f"output_dir={tmp_path / 'on'}")
    assert done.returncode == 0, done.stderr

    other = tmp_path / "other"
    shutil.copytree(small_pair / "teacher", other)
    elsewhere = replaced(steps, "model.student.path", other)
    done = run_command(*elsewhere, "peft=lora", adapter, f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", adapter, str(other), str(small_pair / "student"))

    done = run_command(*steps, "peft=lora", "peft.r=4", adapter, f"output_dir={tmp_path / 'out'}")
    check_nothing_left(done, tmp_path / "out", adapter, "r=8", "peft.r is 4")
