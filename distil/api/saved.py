"""A student on disk: saved by the library or by a run, and taken up again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from distil.adapters.existing import ADAPTER_CONFIG, KEY, SIDECAR, check_folder, load_existing, same_base
from distil.api.errors import ArgumentError, require
from distil.api.names import alone
from distil.api.tokenizers import SETTINGS
from distil.cards.library import CONFIG, ROWS
from distil.models.tokenizers import TOKENIZER_FILES
from distil.system.files import read_json, write_json, write_text
from distil.system.printable import one_line
from distil.system.quiet import quiet_transformers
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distil.api.config import DistillationConfig
    from distil.data.columns import Shape

logger = logging.getLogger(__name__)

CARD = "distillation_card.md"
"""The card of a student, where the folder has a README.md of its own."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""Those that a model is loaded in."""
KEPT = ".kept.json"
"""Beside a saved student: the files of a tokenizer that was there before, and is not ours."""


def save(
    folder: Path,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    config: DistillationConfig,
    card: str,
    base: Mapping[str, Any] | None,
    shape: Shape | None,
) -> None:
    """Write the student as a plain folder. ``base``: what its adapter stands on; None: all of it is saved.
    ``shape``: of the rows of text that it was trained on; None: of none, or nobody knows.

    What ``save_student`` did not write stays: a model is refused, a tokenizer or a README kept.
    """
    from distil.engine.anatomy import is_adapted

    foreign = _check_place(folder, base)
    kept = _own_tokenizer(folder, foreign)
    found_readme = foreign and (folder / "README.md").is_file()
    own_readme = found_readme or (folder / CARD).is_file()
    untyped: Any = student
    try:
        with _placed(folder) as beside:
            if is_adapted(student):
                untyped.save_pretrained(beside, save_embedding_layers=False)
                if base is not None:
                    write_json(beside / SIDECAR, base)
            else:
                with quiet_transformers():
                    untyped.save_pretrained(beside)
            if kept:
                write_json(beside / KEPT, {"tokenizer": kept})
            elif tokenizer is not None:
                tokenizer.save_pretrained(beside)
            config.save(beside / CONFIG)
            if shape is not None:
                write_json(beside / ROWS, shape.record())
            write_text(beside / (CARD if own_readme else "README.md"), card)
    except (OSError, SafetensorError) as error:  # what safetensors calls a full disk
        why = getattr(error, "strerror", None) or error
        raise ArgumentError(
            f"save_student: output_dir={folder} cannot be written to ({why}). Give another folder."
        ) from error
    if names := ["README.md"] * found_readme + kept:
        logger.warning("%s had its own %s before, kept as found.", folder, ", ".join(names))


def _check_place(folder: Path, base: Mapping[str, Any] | None) -> bool:
    """Refuse a folder where no student may be written. Returns whether ``save_student`` wrote none there."""
    require(not folder.is_file(), f"save_student: output_dir={folder} is a file: give a folder.")
    on = None if base is None else Path(base["model"]["path"])
    require(
        on is None or folder.resolve() != on.expanduser().resolve(),
        f"save_student: output_dir={folder} holds the model that this adapter stands on. Give another "
        "folder.",
    )
    foreign = not (folder / CONFIG).is_file()
    models = sorted(_read_beside(folder)) if foreign else []
    require(
        not models,
        f"save_student: output_dir={folder} holds a model that save_student did not write "
        f"({', '.join(models)}). Give another folder: the student here is as it was, and so is that one.",
    )
    return foreign


def _own_tokenizer(folder: Path, foreign: bool) -> list[str]:
    """Files there of a tokenizer that ``save_student`` did not write; ``foreign``: it wrote nothing there."""
    names: Iterable[str] = dict.fromkeys((*TOKENIZER_FILES, *SETTINGS))
    if not foreign:
        names = read_json(folder / KEPT)["tokenizer"] if (folder / KEPT).is_file() else ()
    return [name for name in names if (folder / name).is_file()]


@contextmanager
def _placed(folder: Path) -> Iterator[Path]:
    """A folder to write in; once all is written its files move into ``folder``, and of an earlier student
    goes what would be read beside them. Until then that student stays whole."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        before = _read_beside(folder) if (folder / CONFIG).is_file() else set()
        for path in list(beside.iterdir()):
            if (folder / path.name).is_dir():
                shutil.rmtree(folder / path.name)
            path.replace(folder / path.name)
            before.discard(path.name)
        for name in before:
            (folder / name).unlink()
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read_beside(folder: Path) -> set[str]:
    """Names of the files there that say what a student is."""
    named = (ADAPTER_CONFIG, SIDECAR, KEPT, ROWS, "config.json", "generation_config.json")
    found = [*folder.glob("*.safetensors"), *folder.glob("*.index.json"), *(folder / name for name in named)]
    return {path.name for path in found if path.is_file()}


def own_adapter(student: PreTrainedModel) -> dict[str, Any] | None:
    """Of an adapter that came with the student: its kind, and on what it stands; None: there is none."""
    from distil.engine.anatomy import is_adapted

    if not is_adapted(student):
        return None
    untyped: Any = student
    config = untyped.active_peft_config
    path = config.base_model_name_or_path or student.name_or_path
    return {"peft": config.peft_type.value.lower(), "model": {"path": path}}


def base_recipe(
    model: Mapping[str, Any],
    peft_type: str,
    base_name: str,
    base_print: str,
    seed: int,
    held: Mapping[str, Any],
    title: tuple[str, str],
) -> dict[str, Any]:
    """What an adapter stands on, as the product of a run says it. ``model``: keys of ``model.student``;
    ``held``: in how many bits, as keys of ``peft=qlora`` (empty: whole); ``title``: method and teacher."""
    keys = {key: value for key, value in model.items() if key != "adapter"}
    return {
        "peft": peft_type,
        "model": keys | {"path": base_name},
        "seed": seed,
        "kept_layers": None,
        "base_print": base_print,
        "held": dict(held),
        "method": title[0],
        "teacher": title[1],
    }


def load(
    folder: Path, student: PreTrainedModel | None, base_name: str, base_print: str, *, resumable: bool
) -> PreTrainedModel:
    """The model of ``folder``: a whole one, or ``student`` with the adapter that is there.

    ``resumable``: whether what the student's kind of adapter saves is what it trains. If not (P-tuning), what
    comes is finished: it speaks, and is not trained any further.
    """
    from distil.engine.anatomy import is_adapted

    where = f"model_path={folder}"
    require(not folder.is_file(), f"{where} is a file: give the folder that it is in.")
    require(folder.is_dir(), f"{where}: there is no such folder. Give one that save_student wrote.")
    if (folder / ADAPTER_CONFIG).is_file():
        kind = str(check_folder(folder)["peft_type"])
        require(
            student is not None,
            f"{where} holds an adapter ({kind}), and its base was freed with the student. Make the "
            f"distillation again with the base model ({base_name}), then load_student.",
        )
        assert student is not None
        require(
            is_adapted(student),
            f"{where} holds an adapter ({kind}), and the student here has none to take it. Make the "
            "distillation with the base model and DistillationConfig(use_peft=True, peft_type=…), as it was "
            "trained.",
        )
        if not resumable:
            return _finished(folder, where, student, base_print)
        try:
            load_existing(student, folder, base_name, base_print)
        except InputError as error:
            raise InputError(str(error).replace(f"{KEY}=", "model_path=")) from error
        return student
    if not (folder / "config.json").is_file():
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ArgumentError(
            f"{where} holds no student: it has no config.json (it holds {names}). Give a folder that "
            "save_student wrote, or student/ of a run."
        )
    return _whole(folder, where, student)


def _finished(folder: Path, where: str, student: PreTrainedModel, base_print: str) -> PreTrainedModel:
    """The base of ``student`` behind the prompt that a network wrote, the network left out."""
    from peft import PeftModel

    told = read_json(folder / SIDECAR)["base_print"] if (folder / SIDECAR).is_file() else base_print
    require(
        same_base(told, base_print),
        f"{where}: its adapter was trained on another base than the student here.",
    )
    untyped: Any = student
    try:
        model: Any = PeftModel.from_pretrained(untyped.get_base_model(), str(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ArgumentError(
            f"{where}: its adapter does not fit the student here: {one_line(error)}"
        ) from error
    model.requires_grad_(False)  # PEFT leaves the prompt trainable, behind a network that is not there
    finished: PreTrainedModel = model
    return finished


def _whole(folder: Path, where: str, student: PreTrainedModel | None) -> PreTrainedModel:
    """The whole model in ``folder``, in the precision and on the device of the student that was here; as it
    was saved where there was none."""
    from distil.config.schema import StudentConfig
    from distil.models import load_student

    dtype = "auto" if student is None else str(student.dtype).removeprefix("torch.")
    wanted = StudentConfig(path=str(folder), dtype=dtype if dtype in PRECISIONS else "auto")
    try:
        model = load_student(alone(wanted), seed=0, allow_network=False).model
    except InputError as error:
        said = str(error).replace(f"model.student.path={folder}", where)
        raise ArgumentError(f"{said.rstrip('.')}. Give a folder that save_student wrote.") from error
    if student is not None:
        model.to(student.device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    return model
