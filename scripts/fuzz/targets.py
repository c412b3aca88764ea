"""What reads files that somebody may hand over: each target takes a folder with one input."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from distil.types import DistilError
from scripts.fuzz.mutate import Files, read
from scripts.fuzz.seeds import COMMANDS, data_files, of_run, parquet_file


@dataclass(frozen=True)
class Target:
    """Inputs to begin with, and what is done with one.

    ``share``: of all inputs. ``seal``: makes hashes fit.
    """

    seeds: list[Files]
    use: Callable[[Path], None]
    share: float
    seal: Callable[[dict[str, Any]], None] | None = None


def tried(*uses: Callable[[], object]) -> None:
    """All of them, whatever each refuses."""
    for use in uses:
        try:
            use()
        except DistilError as error:
            if not str(error).strip():
                raise


def targets(made: Path, runs: dict[str, Path]) -> dict[str, Target]:
    """By name. ``made``: a folder with teacher, student and rows; ``runs``: two finished runs."""
    lora, none = (of_run(run) for run in runs.values())
    caches = {f"{name}/": run.parents[1] / ".teacher_cache" for name, run in runs.items()}
    steps = [next((run / "checkpoints").glob("checkpoint-*")) for run in runs.values()]
    return {
        "command": Target([{"words": "\0".join(words).encode()} for words in COMMANDS], use_command, 0.01),
        "config": Target([{"config.yaml": files["config.yaml"]} for files in (lora, none)], use_config, 0.15),
        "data": Target([*data_files(), parquet_file(made)], use_data, 0.25),
        "run": Target([lora, none], use_run, 0.03),
        "cache": Target([read(folder) for folder in caches.values()], use_cache, 0.2, seal_caches),
        "checkpoint": Target(
            [{f"{step.name}/{name}": content for name, content in read(step).items()} for step in steps],
            _Checkpoint(runs),
            0.16,
            seal_checkpoints,
        ),
        "adapter": Target([read(runs["lora"] / "student")], _Adapter(made, runs["lora"]), 0.12),
        "tokenizer": Target(
            [read(made / "student", ["tokenizer", "config.json"]), chat_tokenizer()], use_tokenizer, 0.08
        ),
    }


# ---- command lines


def use_config(folder: Path) -> None:
    from distil.config.saved import saved_config
    from distil.config.validate import validate
    from distil.report.run_directory import read_run

    record = read_run(folder)
    if record.config:
        validate(saved_config(folder / "config.yaml", record.config))


def use_command(folder: Path) -> None:
    from distil.cli import _compose
    from distil.config.command_line import check_arguments, expand, flags_first, is_sweep, plugin_paths
    from distil.config.store import prepared, register_schemas
    from distil.preflight import locate

    file = folder / "words"
    words = (file.read_bytes() if file.is_file() else b"").decode(errors="replace").split("\0")
    check_arguments(words)
    register_schemas(plugin_paths(words))
    flags, overrides = flags_first(words)
    overrides = expand(overrides)
    if not is_sweep(flags, overrides):
        composed, _ = _compose(overrides)
        locate(prepared(composed, words))


# ---- data


def use_data(folder: Path) -> None:
    from distil.data.base import check_data
    from distil.data.hf import HfConfig
    from distil.data.jsonl import JsonlConfig
    from distil.data.splits import load_splits

    for file in sorted(folder.iterdir()):
        for how in ("refuse", "skip"):
            config = JsonlConfig(train_file=str(file), on_bad_row=how, max_length=64)
            tried(partial(check_data, config), partial(load_splits, config, bytes_tokenizer()))
    tried(lambda: check_data(HfConfig(path=str(folder))))


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def bytes_tokenizer(template: str = CHATML) -> Any:
    """256 bytes and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no types
        tokenizer_object=backend, extra_special_tokens=["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>"
    )
    made.chat_template = template
    return made


# ---- run directories


def use_run(folder: Path) -> None:
    from rich.console import Console

    from distil.products.finished_run import open_run
    from distil.products.library import open_product
    from distil.report.comparison.compare import compare
    from distil.report.comparison.files import write_comparison
    from distil.report.comparison.terminal import print_comparison
    from distil.report.html import write_report
    from distil.report.run_directory import read_run
    from distil.report.terminal import print_summary
    from distil.run_check import check_run

    console = Console(file=io.StringIO(), width=80)

    def compared() -> None:
        comparison = compare([folder])
        write_comparison(comparison, folder / "comparison")
        print_comparison(comparison, console)

    def opened() -> None:
        run = open_run(folder)
        _ = (run.title, run.adapter, run.quantization, run.source)
        if run.adapter.adapts:
            _ = run.base

    tried(
        lambda: print_summary(read_run(folder), console),
        lambda: write_report(folder),
        opened,
        compared,
        lambda: open_product(folder / "student"),
        lambda: check_run(folder),
    )


# ---- teacher caches


def use_cache(folder: Path) -> None:
    from distil.teacher_cache.answers import CachedTeacher
    from distil.teacher_cache.manifest import caches, kept_shards, whole
    from distil.verbs.cache import main

    with redirect_stdout(io.StringIO()):
        tried(*(partial(main, [what, "--folder", str(folder)]) for what in ("info", "verify")))
    for each in caches(folder):
        kept_shards(each)
        manifest = whole(each)
        if manifest is not None:
            tried(partial(_answers, CachedTeacher, each, manifest))


def _answers(teacher: Any, folder: Path, manifest: Any) -> None:
    import torch

    from distil.teacher_cache.answers import read_head
    from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
    from distil.teacher_cache.formats.topk import TopK, TopKConfig
    from distil.teacher_cache.store import Reader

    if folder.name.startswith("head"):
        read_head(folder, torch.device("cpu"))
        return
    reader = Reader(folder, manifest)
    kept: Any = TopK(TopKConfig(k=4)) if folder.name.startswith("topk") else Hidden(HiddenConfig())
    head = None
    if kept.needs_head:
        for other in sorted(folder.parent.glob("head-*")):
            head = read_head(other, torch.device("cpu"))
    teacher(reader, kept, head, torch.device("cpu"))(list(range(min(reader.rows, 3))))


def seal_caches(files: dict[str, Any]) -> None:
    for name in [name for name in files if name.endswith("manifest.json")]:
        _seal(files, name, "shards")


def seal_checkpoints(files: dict[str, Any]) -> None:
    for name in [name for name in files if name.endswith("/manifest.json")]:
        _seal(files, name, "files")


def _seal(files: dict[str, Any], name: str, key: str) -> None:
    """Write sizes and hashes of what is there now into a manifest: who hands over files can do that too."""
    try:
        manifest = json.loads(files[name])
        for entry in manifest[key]:
            content = files.get(f"{name.rpartition('/')[0]}/{entry['name']}")
            if isinstance(content, bytes):
                entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[name] = json.dumps(manifest).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return


# ---- checkpoints


class _Checkpoint:
    """Goes on from a checkpoint of either run, as the run would; all steps are taken, so none is left."""

    def __init__(self, runs: dict[str, Path]) -> None:
        from distil.config.schema import ExperimentConfig
        from distil.parts import Parts, load_parts
        from distil.products.finished_run import open_run

        configs = [open_run(run).config for run in runs.values()]
        self.runs: list[tuple[ExperimentConfig, Parts]] = [
            (config, load_parts(config, wants_teacher=True)) for config in configs
        ]

    def __call__(self, folder: Path) -> None:
        from distil.engine.checkpoints import newest_valid, published, rotate, verify

        for each in published(folder):
            verify(each)
        newest, _ = newest_valid(folder)
        if newest is not None:
            adapted = (newest / "trained.safetensors").exists()
            tried(partial(self._go_on, *self.runs[0 if adapted else 1], folder, newest))
        rotate(folder, 1)

    def _go_on(self, config: Any, parts: Any, folder: Path, checkpoint: Path) -> None:
        from distil.engine.checkpoint_reading import numbers_only
        from distil.engine.trainer import DistillationTrainer
        from distil.methods.base import method_of
        from distil.training import training_arguments

        trainer = DistillationTrainer(
            method_of(config.method),
            deepcopy(parts.student),
            parts.teacher,
            parts.splits.train.select_columns(["input_ids", "labels", "prompt_ids"]).to_list(),
            training_arguments(config, folder),
            rollouts=config.rollouts,
            eos_ids=parts.eos_ids,
            pad_id=1,
            shared_vocabulary=parts.shared_vocabulary,
        )
        with numbers_only(str(checkpoint)), redirect_stdout(io.StringIO()):
            trainer.train(resume_from_checkpoint=str(checkpoint))


# ---- adapters


class _Adapter:
    """Goes on from a saved adapter, on a fresh one of the same shape."""

    def __init__(self, made: Path, run: Path) -> None:
        from distil.parts import load_adapted_student
        from distil.products.finished_run import open_run
        from distil.products.loading import load_tokenizer

        opened = open_run(run)
        self.run = run
        self.student, loaded, _ = load_adapted_student(opened.config, load_tokenizer(opened))
        self.name, self.print = loaded.name, loaded.base_print
        self.shape = opened.adapter.shape()
        self.base = loaded

    def __call__(self, folder: Path) -> None:
        from distil.adapters.existing import check_stored, load_existing

        tried(
            lambda: check_stored(folder, self.shape),
            lambda: load_existing(self.student, folder, self.name, self.print),
        )


# ---- tokenizers


def chat_tokenizer() -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        bytes_tokenizer().save_pretrained(folder)
        config = {"model_type": "llama", "vocab_size": 300, "architectures": ["LlamaForCausalLM"]}
        return read(Path(folder)) | {"config.json": json.dumps(config).encode()}


def use_tokenizer(folder: Path) -> None:
    from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
    from distil.data.base import ColumnsConfig
    from distil.data.splits import encode_rows
    from distil.models import check_models, load_tokenizer
    from scripts.fuzz.seeds import SHAPES

    model = ModelConfig("custom", TeacherConfig(), StudentConfig(path=str(folder), init="random"))
    tried(lambda: check_models(model, allow_network=False))
    tokenizer, _ = load_tokenizer(model, allow_network=False)
    columns = ColumnsConfig(name="rows", max_length=64)
    for rows in (SHAPES["pairs"], SHAPES["chats"]):
        tried(partial(encode_rows, columns, rows, tokenizer, "rows"))
