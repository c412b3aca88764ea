"""Loading teacher and student."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distil.config.schema import LoadConfig, ModelConfig
from distil.models.base_print import base_print
from distil.models.check import ask_hub, check_layer_range, check_may_ask, runs_code
from distil.models.fetch import fetch, lost, told
from distil.models.pruning import block_influence, choose_layers, decoder_blocks, prune_layers
from distil.models.quantize import TEACHER_KINDS, bits_and_bytes, is_packed, settle
from distil.models.random_init import changed_config
from distil.models.sources import Source, student_source, teacher_source
from distil.system.limits import out_of_memory
from distil.system.printable import one_line
from distil.system.quiet import quiet_transformers
from distil.types import DistilError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedStudent:
    """The student before training."""

    model: PreTrainedModel
    kept_layers: list[int] | None
    """Which blocks of the original it keeps; None: it was not pruned."""
    base_print: str
    """What tells its weights from those of another model, quantised or not."""

    @property
    def name(self) -> str:
        """Where it is from: a hub name, or a folder."""
        return str(self.model.name_or_path)


def load_teacher(config: ModelConfig, *, allow_network: bool = True) -> PreTrainedModel | None:
    """The teacher in eval mode with no gradients; None where ``model.teacher.path`` is null."""
    source = teacher_source(config)
    if source is None:
        return None
    kind = config.teacher.quantization
    model = _pretrained(source, config.teacher, allow_network, None if kind is None else TEACHER_KINDS[kind])
    if is_packed(model):
        label = source.label if kind is None else f"model.teacher.quantization={kind}"
        settle(model, label, "Take the plain weights." if kind is None else "Take int8, or null.")
    model.train(False)
    model.requires_grad_(False)
    return model


def load_skeleton(config: ModelConfig, *, allow_network: bool = True) -> PreTrainedModel:
    """The teacher without its weights: what its config alone tells of vocabulary, positions, size and end.

    Nothing can be computed with it. Raises InputError where there is no teacher to load.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    source = teacher_source(config)
    assert source is not None, "a teacher of its own"
    known = from_source(AutoConfig.from_pretrained, source, allow_network)
    build: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
    with torch.device("meta"), user_error(source, allow_network):
        model = build(known, trust_remote_code=source.trust_remote_code)
    if source.gguf_file is None and source.file("generation_config.json") is not None:
        model.generation_config = from_source(GenerationConfig.from_pretrained, source, allow_network)
    model.name_or_path = _name(source)
    model.train(False)
    return model


def needs_calibration(config: ModelConfig) -> bool:
    """Whether ``load_student`` must be given calibration rows: it has to choose layers itself."""
    return isinstance(config.student.keep_layers, int)


def load_student(
    config: ModelConfig,
    seed: int,
    calibration_rows: Sequence[Sequence[int]] | None = None,
    *,
    quantization: Mapping[str, Any] | None = None,
    allow_network: bool = True,
) -> LoadedStudent:
    """The student: pretrained, pruned to ``keep_layers``, or untrained (``init: random``, from ``seed``).

    ``calibration_rows``: token ids of a few training rows (CALIBRATION_ROWS are plenty), needed where
    ``keep_layers`` is a count. ``quantization``: keys of ``BitsAndBytesConfig`` by which it is held.
    Raises InputError where it cannot be built.
    """
    source = student_source(config)
    if config.student.init == "random":
        untrained = _random(source, config, seed, allow_network)
        return LoadedStudent(untrained, None, base_print(untrained))
    model = _pretrained(source, config.student, allow_network, quantization)
    if is_packed(model):
        way_out = "Take peft.bits=8, or peft=lora." if quantization else "Take the plain weights."
        settle(model, source.label, way_out)
    keep = config.student.keep_layers
    if keep is None:
        return LoadedStudent(model, None, base_print(model))
    total = len(decoder_blocks(model)[1])
    check_layer_range(keep, total, source.label)
    if isinstance(keep, int):
        if keep < total and not calibration_rows:
            raise ValueError("a count of layers is chosen by block influence, which needs calibration_rows")
        influence = block_influence(model, calibration_rows) if calibration_rows else [0.0] * total
        keep = choose_layers(influence, keep)
    kept = [int(layer) for layer in keep]
    prune_layers(model, kept)
    return LoadedStudent(model, kept, base_print(model))


def from_source(load: Callable[..., T], source: Source, allow_network: bool, **kwargs: Any) -> T:
    """``load`` (a ``from_pretrained``) on ``source``, with failures as InputErrors.

    A hub model that is in the cache is taken from there without asking the hub: no run waits for a network.
    One of which nothing is in the cache is asked for once before its library would retry for a minute.
    """
    if source.revision is not None:
        kwargs["revision"] = source.revision
    if source.gguf_file is not None:
        kwargs["gguf_file"] = source.gguf_file
    # Said each time: where it is left out, transformers asks whoever sits at the terminal.
    kwargs["trust_remote_code"] = source.trust_remote_code
    prefix = source.key.removesuffix("path")
    asked = [f"{prefix}{key}={kwargs[key]}" for key in ("attn_implementation", "device_map") if key in kwargs]
    with user_error(source, allow_network, asked):
        if source.folder is None:
            try:
                return load(source.location, local_files_only=True, **kwargs)
            except OSError:  # Not, or not wholly, in the cache.
                if source.file(source.gguf_file or "config.json") is None:
                    ask_hub(source, allow_network)
        online = source.folder is None and allow_network
        return load(source.location, local_files_only=not online, **kwargs)


@contextmanager
def user_error(source: Source, allow_network: bool, asked: Sequence[str] = ()) -> Iterator[None]:
    """Turn what transformers raises about a model it cannot load into an InputError that names the key.

    ``asked``: keys with values that say how it is loaded, named where nothing else is to blame.
    """
    try:
        yield
    except DistilError:
        raise
    except Exception as error:  # of damaged files their readers raise anything, tokenizers a bare Exception
        if out_of_memory(error):  # the model is not to blame
            raise
        if not source.trust_remote_code and "trust_remote_code" in str(error):
            raise InputError(runs_code(source)) from error
        if source.folder is None and lost(error):
            check_may_ask(source, allow_network)
            raise InputError(told(source, f"{type(error).__name__}: {one_line(error)}")) from error
        if "ignore_mismatched_sizes" in str(error):
            raise InputError(
                f"{source.label}: the weights there are not of the sizes that its config.json says: one of "
                "them is another model's. Give a folder written by save_pretrained()."
            ) from error
        raise InputError(
            f"{' with '.join([source.label, *asked])} cannot be loaded: {type(error).__name__}: "
            f"{one_line(error, 600)}"
        ) from error


def _options(config: LoadConfig) -> dict[str, Any]:
    """What both kinds of loading take, under transformers' own names; what is not set is left to it."""
    options = {"dtype": config.dtype, "attn_implementation": config.attn_implementation}
    return {key: value for key, value in options.items() if value is not None}


def _pretrained(
    source: Source, config: LoadConfig, allow_network: bool, quantization: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, GgufConfig

    options = _options(config)
    if config.device_map is not None:
        options["device_map"] = config.device_map
    if source.gguf_file is not None:
        # Otherwise the weights stay packed: not trainable, not savable.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
        # Of a hub model that has pickles alone, transformers would ask a bot of the hub for a conversion.
        os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    if quantization is not None:
        options["quantization_config"] = bits_and_bytes(quantization, config.dtype)
    load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
    with user_error(source, allow_network):
        fetch(source, allow_network, weights=True)
    with quiet_transformers():
        model, report = from_source(load, source, allow_network, output_loading_info=True, **options)
    absent = sorted(report["missing_keys"])
    if absent:
        raise InputError(
            f"{source.label}: the file has no weights for {', '.join(absent[:3])} ({len(absent)} in all), "
            "which would start at random. Give a whole causal language model, or model.student.init=random."
        )
    loaded: PreTrainedModel = model
    loaded.name_or_path = _name(source)
    return loaded


def _name(source: Source) -> str:
    """What an adapter's files name as their base: no place on this machine where there is a better name."""
    named_folder = Path(source.name).expanduser().is_dir()
    return source.location if named_folder else source.name


def _random(source: Source, config: ModelConfig, seed: int, allow_network: bool) -> PreTrainedModel:
    """An untrained model of the kind of ``source``; the global random state is left as it was."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    original = from_source(AutoConfig.from_pretrained, source, allow_network)
    changed = changed_config(original, config.student.overrides)
    options = _options(config.student)
    dtype = options.pop("dtype")
    if dtype != "auto":
        options["dtype"] = getattr(torch, dtype)
    with torch.random.fork_rng(devices=[]), user_error(source, allow_network):
        torch.manual_seed(seed)
        build: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
        model = build(changed, trust_remote_code=source.trust_remote_code, **options)
    model.name_or_path = _name(source)
    model.train(False)
    return model
