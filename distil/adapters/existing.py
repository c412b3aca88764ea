"""Going on from a saved adapter: whether it is of the kind, the shape and the base that the config says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.system.files import read_json
from distil.system.printable import one_line
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEY = "model.student.adapter"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SIDECAR = "distil.json"
"""Beside an adapter of ours: how its base is made."""

SHAPE = (
    "r",
    "lora_alpha",
    "use_dora",
    "use_rslora",
    "bias",
    "target_modules",
    "feedforward_modules",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
    "num_virtual_tokens",
    "modules_to_save",
)
"""Keys of PEFT's configs in which an adapter and the one asked for must agree."""

START = "init_lora_weights"
KEEP_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Its values that leave the base alone; the others (PiSSA, OLoRA, …) move part of it into the adapter."""

FINISHED = {"P_TUNING": "PROMPT_TUNING"}
"""What is saved of the one kind is all that the other is: a prompt, without the network that wrote it."""


def check_folder(folder: Path) -> dict[str, Any]:
    """``adapter_config.json`` of ``folder``. Raises InputError where it holds no saved adapter."""
    if not folder.is_dir():
        raise InputError(f"{KEY}={folder}: no such folder. Give one that holds {ADAPTER_CONFIG}.")
    absent = [name for name in (ADAPTER_CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{KEY}={folder}: the folder lacks {' and '.join(absent)}. Give the folder of a saved adapter, "
            "such as the student/ of a run with peft=lora."
        )
    try:
        content = read_json(folder / ADAPTER_CONFIG)
    except (OSError, ValueError) as error:
        raise InputError(f"{KEY}={folder}: {ADAPTER_CONFIG} is not JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise InputError(f"{KEY}={folder}: {ADAPTER_CONFIG} names no peft_type, so it is no adapter of PEFT.")
    return content


def check_stored(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raise InputError where ``folder`` holds no adapter, or one of another kind or shape than ``asked``.

    ``asked``: ``Adapter.shape()``. Reads JSON alone; what the base decides waits for ``load_existing``.
    """
    _check_shape(folder, check_folder(folder), asked)


def load_existing(wrapped: PreTrainedModel, folder: Path, base_name: str, base_print: str) -> str | None:
    """Put the weights saved in ``folder`` into ``wrapped``, a student with a fresh adapter of the same shape.

    ``base_name`` and ``base_print`` tell which base ``wrapped`` has. Returns a note where the two could only
    be compared by name. Raises InputError, naming both, for another base, kind or shape.
    """
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    from safetensors import SafetensorError

    stored = check_folder(folder)
    untyped: Any = wrapped
    ours = untyped.peft_config[untyped.active_adapter].to_dict()
    note = _check_base(folder, stored, base_name, base_print)
    _check_shape(folder, stored, ours)
    try:
        weights = load_peft_weights(str(folder), device="cpu")
        result: Any = set_peft_model_state_dict(wrapped, weights)
    except SafetensorError as error:
        raise InputError(f"{KEY}={folder}: {WEIGHTS} is damaged ({error}). Copy it again.") from error
    except RuntimeError as error:  # sizes that no config key tells: another base
        raise InputError(
            f"{KEY}={folder} was trained on {stored.get('base_model_name_or_path')}; it does not fit "
            f"{base_name}: {one_line(error)}"
        ) from error
    except KeyError as error:  # a prompt that is not there
        raise InputError(f"{KEY}={folder}: {WEIGHTS} lacks {error}. Copy it again.") from error
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    lacking = [] if "prompt_embeddings" in weights else sorted(trained.intersection(result.missing_keys))
    if lacking:
        raise InputError(
            f"{KEY}={folder}: {WEIGHTS} lacks {', '.join(lacking[:3])} ({len(lacking)} in all), which would "
            "start afresh. Copy it again, or give the peft.* keys that it was made with."
        )
    # A prompt has been taken by its encoder, and is reported all the same.
    homeless = [key for key in result.unexpected_keys if key != "prompt_embeddings"]
    if homeless:
        raise InputError(
            f"{KEY}={folder} was trained on {stored.get('base_model_name_or_path')}; {base_name} has no "
            f"place for {', '.join(homeless[:3])}."
        )
    return note


def same_base(one: str, other: str) -> bool:
    """Whether two prints (``models.base_print``) may be of one base: what both could see is equal."""
    (kept, linear), (their_kept, their_linear) = (x.partition(".")[::2] for x in (one, other))
    return kept == their_kept and (linear == their_linear or "packed" in (linear, their_linear))


def _check_base(folder: Path, stored: Mapping[str, Any], base_name: str, base_print: str) -> str | None:
    theirs = str(stored.get("base_model_name_or_path"))
    if (folder / SIDECAR).is_file():
        try:
            told = read_json(folder / SIDECAR)
            theirs_print, made = told["base_print"], dict(told.get("model", ()))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{KEY}={folder}: {SIDECAR} is damaged ({type(error).__name__}: {error}). Copy it again."
            ) from error
        if not same_base(str(theirs_print), base_print):
            raise InputError(
                f"{KEY}={folder} was trained on {theirs}; the student is {base_name}, whose weights are "
                f"others. Give what it was made of, as {SIDECAR} there says: {_student_keys(theirs, made)}, "
                "beside the model.teacher.path of this run. (float16 rounds weights to others.)"
            )
        return None
    if Path(theirs).name == Path(base_name).name:
        return None
    both_named = not Path(theirs).is_dir() and not Path(base_name).is_dir()
    if both_named:
        raise InputError(
            f"{KEY}={folder} was trained on {theirs}; the student is {base_name}. Give "
            f"model.student.path={theirs}, or an adapter of {base_name}."
        )
    return f"{KEY}={folder} names {theirs} as its base; the student is {base_name}: taken to be the same."


def _student_keys(path: str, made: Mapping[str, Any]) -> str:
    """The keys of ``model.student`` that make the base of a saved adapter."""
    keys = {"path": path} | {key: made[key] for key in ("keep_layers", "dtype") if key in made}
    written = {key: "null" if value is None else str(value).replace(" ", "") for key, value in keys.items()}
    return " ".join(f"model.student.{key}={value}" for key, value in written.items())


def _check_shape(folder: Path, stored: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    kind = getattr(ours["peft_type"], "value", ours["peft_type"])
    if kind not in (stored["peft_type"], FINISHED.get(stored["peft_type"])):
        raise InputError(
            f"{KEY}={folder} is of the kind {stored['peft_type']}, but peft= makes {kind}. Choose the peft "
            "that it was made with."
        )
    for key in SHAPE:
        if key in stored and key in ours and _plain(stored[key]) != _plain(ours[key]):
            theirs = _shown(stored[key])
            way_out = f"Give peft.{key}={theirs}"
            if key == "use_dora":  # no key of ours, but a kind
                way_out = f"Take {'peft=dora' if stored[key] else 'peft=lora'}"
            raise InputError(
                f"{KEY}={folder} has {key}={theirs}, but peft.{key} is {_shown(ours[key])}. {way_out}."
            )
    _check_start(folder, stored.get(START, True), ours.get(START, True))


def _check_start(folder: Path, theirs: Any, ours: Any) -> None:
    """An adapter that took part of its base goes on a base that lacks that part, and no other does."""
    if theirs != ours and not (theirs in KEEP_BASE and ours in KEEP_BASE):
        raise InputError(
            f"{KEY}={folder} has {START}={theirs}, but peft.{START} is {ours}: the base under it would be "
            f"another. Give peft.{START}={str(theirs).lower()}."
        )


def _plain(value: Any) -> Any:
    """Lists of names have no order; nothing and empty are one."""
    return sorted(value, key=str) if isinstance(value, (list, tuple, set)) and value else value or None


def _shown(value: Any) -> str:
    return (
        f"[{','.join(map(str, sorted(value, key=str)))}]"
        if isinstance(value, (list, tuple, set))
        else str(value)
    )
