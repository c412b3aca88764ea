"""One run: from a typed config to a run directory that anyone can read.

Everything that can be refused is refused before a model loads; everything that was computed stays on disk.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from distil import environment, identity, ranks
from distil.adapters.base import ADAPTERS
from distil.adapters.existing import ADAPTER_CONFIG, WEIGHTS, check_stored
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.config.validate import check_packages, check_processes
from distil.data.base import check_data
from distil.files import check_writable, read_json, write_json, write_text
from distil.locks import alone
from distil.methods.base import METHODS, Method
from distil.models import check_models, check_quantized
from distil.models.sources import student_source, teacher_source
from distil.redact import redact
from distil.report.html import write_report
from distil.report.run_directory import read_run
from distil.report.terminal import print_summary
from distil.tracking import NoTracker, Tracker, check_tracker, how_to_see, start_tracker
from distil.types import DistilError, InputError, RunFailed, RunInterrupted

logger = logging.getLogger(__name__)

STATUS = "status.json"

DDP_TIMEOUT = 1800
"""Seconds, as transformers has it."""


def tell(line: str) -> None:
    """Print ``line`` for the person at the terminal, beside results."""
    print(line, file=sys.stderr, flush=True)


def run(
    config: ExperimentConfig, *, command: str, summary: bool = True, say: Callable[[str], None] = tell
) -> Path:
    """Run ``config`` to its end and return its run directory; a run that is done is only shown.

    Where another command is at that run, it is waited for. Of the processes that ``torchrun`` starts, the
    first writes the directory, and alone says what went wrong.

    Args:
        config: of the run.
        command: what starts it again.
        summary: whether to print at the end what came out.
        say: takes a line of who is waited for.

    Raises InputError before anything expensive, RunFailed and RunInterrupted with all that was computed kept.
    """
    check_processes(config)
    patience = config.trainer.arguments().get("ddp_timeout", DDP_TIMEOUT)
    with ExitStack() as held, ranks.joined(patience):
        name, folder, done = ranks.from_main(lambda: _located(config, held, say))
        if ranks.is_main():
            _run_first(config, redact(command), name, Path(folder), summary)
        elif not done:
            _run_beside(config, Path(folder), command)
    return Path(folder)


def _located(config: ExperimentConfig, held: ExitStack, say: Callable[[str], None]) -> tuple[str, str, bool]:
    """Identity, folder, whether it is done; if not, the folder is this process's for as long as ``held``."""
    name, folder = locate(config)
    if status_of(folder) != "done":
        try:
            held.enter_context(alone(folder, say))
        except OSError as error:
            raise InputError(f"output_dir={config.output_dir}: {error}. Give another output_dir=.") from error
    return name, str(folder), status_of(folder) == "done"


def _run_beside(config: ExperimentConfig, folder: Path, command: str) -> None:
    """The part of any process but the first: it trains, writes nothing, and is not heard."""
    logging.disable()
    warnings.simplefilter("ignore")
    from distil.stages import run_stages

    method = METHODS.get(config.method.name).factory(config.method)
    environment.use_threads(config.run.threads)
    run_stages(config, method, folder, NoTracker(), Console(quiet=True), command)


def _run_first(config: ExperimentConfig, command: str, name: str, folder: Path, summary: bool) -> None:
    """The whole of a run, in the first process or the only one."""
    console = Console(quiet=not summary)
    if status_of(folder) == "done":
        console.print(
            f"Done before: {folder}. To run it again in a new folder: run.rerun=true.\n", highlight=False
        )
        print_summary(read_run(folder), console)
        return
    method = METHODS.get(config.method.name).factory(config.method)
    environment.use_threads(config.run.threads)
    _open_folder(folder, config, command)
    with _reported(folder), _log_file(folder / "run.log"):
        with _kept_status(folder, name, command), ExitStack() as started, ranks.one_failure():
            from distil.stages import run_stages

            plain = _without_secrets(config)
            tracker = start_tracker(config.tracker, folder, plain, folder.name, folder.name)
            started.enter_context(tracker)
            run_stages(config, method, folder, tracker, Console(stderr=True), command)
            started.pop_all()  # it stays open: the report that it may keep is that of a run that is done
        with tracker:
            _keep_files(tracker, folder)
    print_summary(read_run(folder), console)
    for line in how_to_see([folder]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _keep_files(tracker: Tracker, folder: Path) -> None:
    """Hand the tracker the files of a run that is done. The run stays done whatever becomes of them."""
    try:
        write_report(folder)
        tracker.files(folder)
    except Exception as error:
        logger.warning("The tracker did not get its files: %s: %s", type(error).__name__, error)


def locate(config: ExperimentConfig) -> tuple[str, Path]:
    """The identity of the run of ``config`` and its folder. Raises InputError for what cannot run."""
    preflight(config)
    name = identify(config, METHODS.get(config.method.name).factory(config.method))
    return name, identity.run_folder(config, name)


def preflight(config: ExperimentConfig) -> None:
    """Refuse what cannot work, with the standard library alone: no model, no torch."""
    check_packages(config)
    check_tracker(config.tracker)
    check_data(config.data, config.run.allow_network)
    adapter = ADAPTERS.get(config.peft.name).factory(config.peft)
    check_models(config.model, allow_network=config.run.allow_network)
    check_quantized(
        config.model, f"peft={config.peft.name}", adapter.adapts, adapter.quantization is not None
    )
    if config.model.student.adapter is not None:
        check_stored(Path(config.model.student.adapter).expanduser(), adapter.shape())
    check_writable(config.output_dir)


def identify(config: ExperimentConfig, method: Method[MethodConfig]) -> str:
    """The identity of this run: its config without what has no effect, its files' contents, the code."""
    known = _fingerprints(config)
    if ranks.world_size() > 1:  # they multiply the batch
        known |= {"processes": str(ranks.world_size())}
    return identity.run_identity(asdict(config), known, environment.code_version(), _ignored(config, method))


def _ignored(config: ExperimentConfig, method: Method[MethodConfig]) -> list[str]:
    """Dotted keys that this run does not use."""
    ignored = [f"method.{key}" for key in config.method.ignored]
    return ignored if method.wants_rollouts else [*ignored, "rollouts"]


def _fingerprints(config: ExperimentConfig) -> dict[str, str]:
    """Contents of the files and folders that config values name, by dotted key."""
    sources = (teacher_source(config.model), student_source(config.model))
    paths = {
        source.key: source.folder for source in sources if source is not None and source.folder is not None
    }
    for key, value in asdict(config.data).items():
        if (
            isinstance(value, str)
            and (key == "path" or key.endswith("_file"))
            and Path(value).expanduser().exists()
        ):
            paths[f"data.{key}"] = Path(value).expanduser()
    adapter = config.model.student.adapter
    if adapter is not None:
        saved = Path(adapter).expanduser()
        # Not its model card, which holds a command: what weights are and how they are put on, no more.
        paths |= {"model.student.adapter": saved / WEIGHTS, "adapter_config": saved / ADAPTER_CONFIG}
    paths |= {f"plugin {Path(path).name}": Path(path) for path in config.run.plugins}
    return {key: identity.fingerprint_path(path) for key, path in paths.items()}


def _without_secrets(config: ExperimentConfig) -> dict[str, Any]:
    """The config as plain values, for files and trackers."""
    plain: dict[str, Any] = redact(asdict(config))
    return plain


def status_of(folder: Path) -> str | None:
    """What the ``status.json`` of a run directory says; None where there is none that can be read."""
    try:
        status: str = read_json(folder / STATUS)["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status


def _open_folder(folder: Path, config: ExperimentConfig, command: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(_without_secrets(config), sort_keys=False, allow_unicode=True)
        write_text(folder / "config.yaml", text)
        method = METHODS.get(config.method.name).factory(config.method)
        known: dict[str, Any] = {
            "code": environment.code_version(),
            "fingerprints": _fingerprints(config),
            "ignored": _ignored(config, method),
        }
        if ranks.world_size() > 1:
            known["processes"] = ranks.world_size()
        write_json(folder / "environment.json", environment.describe_environment(command) | known)
    except OSError as error:
        raise InputError(f"output_dir={config.output_dir}: {error}. Give another output_dir=.") from error


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """The report is written however the run ends: of a stopped run it shows how far that came, and why."""
    try:
        yield
    except BaseException:
        try:
            if folder.exists():
                write_report(folder)
        except Exception as error:  # a full disk or memory: the run's own error is what the user must see
            logger.warning("No report: %s: %s", type(error).__name__, error)
        raise
    write_report(folder)


class _Redacted(logging.Formatter):
    """Libraries log addresses and paths as they were given, secrets and all."""

    def format(self, record: logging.LogRecord) -> str:
        text: str = redact(super().format(record))
        return text


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Everything the project and its libraries log goes to ``run.log`` as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("distil")
    level = ours.level
    shown = logging.StreamHandler()  # our own warnings are for the person at the terminal too
    shown.setLevel(logging.WARNING)
    shown.setFormatter(_Redacted("%(levelname)s: %(message)s"))
    root.addHandler(handler)
    ours.addHandler(shown)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        ours.removeHandler(shown)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def _kept_status(folder: Path, name: str, command: str) -> Iterator[None]:
    """Keep ``status.json`` true: running, then done, interrupted or failed with the reason."""
    status = {"status": "running", "reason": None, "identity": name, "started": _now(), "finished": None}

    def write(state: str, reason: str | None = None) -> None:
        finished = None if state == "running" else _now()
        told = status | {"status": state, "reason": redact(reason), "finished": finished, "command": command}
        try:
            write_json(folder / STATUS, told)
        except OSError as error:
            if state != "failed":
                raise
            # A full disk: overwriting takes no new room, and the run's own error is what the user must see.
            logger.warning("%s could not be written: %s", STATUS, error)

    fresh = not (folder / STATUS).exists()
    write("running")
    go_on = f"The same command goes on from the last checkpoint:\n  {command}"
    try:
        yield
    except (KeyboardInterrupt, RunInterrupted) as error:
        write("interrupted", str(error) or "Ctrl-C")
        raise RunInterrupted(f"{str(error) or 'Stopped.'} {go_on}") from None
    except InputError as error:
        # Seen only once the data were tokenised: a run that never began leaves nothing behind.
        if fresh:
            shutil.rmtree(folder)
        else:
            write("failed", str(error))
        raise
    except DistilError as error:
        write("failed", str(error))
        raise
    except Exception as error:
        failure = _known_failure(error)
        write("failed", str(failure or f"{type(error).__name__}: {error}"))
        if failure is not None:
            raise failure from error
        logger.exception("The run failed.")
        raise
    write("done")


def _known_failure(error: Exception) -> RunFailed | None:
    """The user's word for failures of the machine; None for what is a mistake of ours."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return RunFailed(
            "Out of memory. Halve trainer.per_device_train_batch_size and double "
            "trainer.gradient_accumulation_steps: the result stays the same. Shorter rows "
            "(data.max_length) and "
            f"eval.batch_size help too. ({text.splitlines()[0] if text else 'MemoryError'})"
        )
    if _is_disk_full(error):
        return RunFailed(
            f"The disk is full ({text}). What was written before is kept; free some space and run again."
        )
    return None


def _is_disk_full(error: BaseException) -> bool:
    """Libraries say it each in their way: safetensors in words, torch only in what its error came from."""
    told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    words = any(word in str(error) for word in ("No space left on device", "Disk quota exceeded"))
    before = error.__cause__ or error.__context__
    return told or words or (before is not None and _is_disk_full(before))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
