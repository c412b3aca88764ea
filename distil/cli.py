"""The command: ``python run.py …`` and ``distil run …`` compose a config and run it.

Exit codes are mapped here alone: 0 done, 1 failed, 2 bad input, 75 stopped by the machine, 130 by Ctrl-C. Bad
input ends in one message, before anything heavy is imported.

One file: a command is read here from its words to its exit code, and few modules may know of Hydra.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import io
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.config.command_line import (
    MULTIRUN_FLAGS,
    PLUGINS_VARIABLE,
    check_arguments,
    expand,
    flag_value,
    flags_first,
    is_sweep,
    plugin_paths,
    value_of,
)
from distil.config.help import conf_folder, help_text
from distil.processes.ranks import is_main, sharded, world_size
from distil.registry import unknown_name
from distil.system import stopping
from distil.system.limits import out_of_memory, shortage
from distil.system.printable import printable
from distil.system.quiet import lossy_logging
from distil.system.redact import redact
from distil.types import DistilError, InputError, RunFailed, RunInterrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from distil.config.tuned import Tuned

HYDRA_VERSION_BASE = "1.3"
VERBS = {
    "run": "distil, evaluate, report: the same as python run.py",
    "report": "RUN_FOLDER: write its report again",
    "compare": "FOLDER …: runs side by side, over seeds, with what can be told apart",
    "evaluate": "RUN: evaluate its student again, on its test rows or a file of yours",
    "generate": "RUN --prompt TEXT: let its student answer",
    "merge": "RUN --output DIR: its adapter and base as one plain model",
    "export": "RUN: its student as a folder ready for a hub; --push NAME uploads it",
    "cache": "info, verify or clear what teacher_cache= keeps",
    "doctor": "what this machine can run; RUN_DIR: whether that run is whole",
}
IN_MODULES = ("report", "evaluate", "generate", "merge", "export", "cache", "doctor")
"""Verbs that are the module of their name in ``distil.verbs``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _verb(arguments)
    except DistilError as error:
        if is_main():  # the others have told it
            kind = "" if isinstance(error, RunInterrupted) else "error: "
            print(f"{kind}{_safe(str(error))}", file=sys.stderr)
        if error.__cause__ is not None and out_of_memory(error.__cause__):
            atexit.register(setattr, sys, "unraisablehook", _ignored)
        return error.exit_code
    except KeyboardInterrupt:  # while libraries load, or while a run that is done is shown
        if is_main():
            print("\nStopped.", file=sys.stderr)
        return stopping.interrupted("Stopped").exit_code
    except BrokenPipeError:  # the reader of `… | head` has gone, and Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        failure = _missing(error) or _of_the_machine(error)
        if failure is not None:
            print(f"error: {_safe(str(failure))}", file=sys.stderr)
            return failure.exit_code
        # A mistake of ours or of a library: all of it, but for secrets.
        print(_safe(traceback.format_exc()), end="", file=sys.stderr)
        return 1


def _missing(error: Exception) -> DistilError | None:
    """The word for a package that is not installed; None where one that is cannot find a part of itself."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not name or importlib.util.find_spec(name) is not None:
        return None
    return InputError(
        f"{name} is not installed for {sys.executable}. Install it there, or use the environment that "
        "`make run` made: source .venv/bin/activate"
    )


def _of_the_machine(error: Exception) -> DistilError | None:
    """The word for a failure of the machine outside a run, if it is one."""
    try:
        from distil.status import known_failure
    except MemoryError:
        return RunFailed(f"{shortage(error)}.")
    return known_failure(error)


def _ignored(_: Any) -> None:
    """What libraries do at the end of the process finds no memory either, and Python would tell of each."""


def _safe(text: str) -> str:
    """``text`` without secrets, and without what would steer a terminal."""
    return printable(redact(text))


def _verb(arguments: list[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb == "--version":
        return _version()
    if verb == "run":
        return run(rest)
    if verb == "compare":
        from distil.report.comparison.command import run_compare

        return run_compare(rest)
    if verb in IN_MODULES:
        code: int = importlib.import_module(f"distil.verbs.{verb}").main(rest)
        return code
    if verb not in ("--help", "-h", "help"):
        if "=" in verb or verb.startswith("-"):
            raise InputError(f"distil wants a verb first. Write: distil run {shlex.join(arguments)}")
        raise InputError(unknown_name("distil", verb, VERBS).replace("distil=", "distil "))
    print("usage: distil VERB …\n")
    print("\n".join(f"  {name:<10}{text}" for name, text in VERBS.items()))
    print("\nEach verb has a --help of its own.")
    return 0


def _version() -> int:
    from distil.api.version import __version__

    print(f"distil-runner {__version__}")
    return 0


def run(arguments: list[str]) -> int:
    """Compose a config from ``arguments`` (overrides and Hydra's flags) and run it."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text(_program(), [conf_folder(), *_config_dirs(arguments)]))
        return 0
    if "--version" in arguments:
        return _version()
    if arguments and arguments[0] in VERBS:
        raise InputError(f"A run takes no verb. Write: distil {shlex.join(arguments)}")
    with stopping.heard():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    check_arguments(arguments, _about_flag)
    plugins = plugin_paths(arguments)
    from distil.config.store import register_schemas

    register_schemas(plugins)
    flags, overrides = flags_first(arguments)
    overrides = expand(overrides)
    folder = flag_value(flags, "--config-dir", "-cd")
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"--config-dir={folder}: no such folder.")
    if (part := flag_value(flags, "--package", "-p")) and not flag_value(flags, "--cfg", "-c"):
        raise InputError(f"--package says which part is shown: write --cfg job --package {part}.")
    if flag_value(flags, "--cfg", "-c") and any(flag in MULTIRUN_FLAGS for flag in flags):
        raise InputError("--cfg shows the config of one run: leave out -m, and give each key one value.")
    if is_sweep(flags, overrides):
        _sweep(flags, overrides, arguments, plugins)
        return 0
    if flags or value_of("hydra.mode", overrides):
        composed = _through_hydra([*flags, *overrides], plugins)
    else:
        composed = _compose(overrides)
    if composed is not None:
        _job(*composed, f"{_program()} {shlex.join(arguments)}".strip(), arguments)
    return 0


def _about_flag(flag: str, value: str) -> str:
    from distil.config.explain import unknown_flag
    from distil.config.store import schemas

    return unknown_flag(flag, value, schemas())


def _job(config: DictConfig, tuned: Sequence[Tuned], command: str, arguments: Sequence[str]) -> None:
    """One run, from a composed config and the files of tuned keys that it was composed with."""
    from distil.config.store import prepared

    experiment = prepared(config, arguments)
    if is_main():
        from distil.preflight import unused

        for line in unused(experiment, arguments):
            print(f"warning: {_safe(line)}", file=sys.stderr)
    from distil.experiment import run as run_experiment

    run_experiment(experiment, command=_with_plugins(command), tuned=tuned)


def _sweep(flags: list[str], overrides: list[str], arguments: list[str], plugins: list[str]) -> None:
    """Every combination of what ``overrides`` say, one job after the other or as the launcher has it."""
    if world_size() > 1:
        raise InputError(
            "-m under torchrun: a sweep starts its jobs itself. Start each job by a torchrun of its own, all "
            "with one name=NAME, then: distil compare outputs/NAME."
        )
    from distil.sweeps.multirun import Request, sweep

    if flag_value(flags, "--config-path", "-cp"):
        raise InputError("--config-path does not go with -m. --config-dir adds a folder of your own options.")
    shown = [word for word in arguments if word not in MULTIRUN_FLAGS and word in flags]
    folder = flag_value(flags, "--config-dir", "-cd")
    if folder is not None:
        overrides = [*overrides, f"hydra.searchpath=['file://{Path(folder).absolute()}']"]
    request = Request(
        conf=conf_folder(),
        config_name=flag_value(flags, "--config-name", "-cn") or "config",
        overrides=overrides,
        command=_with_plugins(f"{_program()} {shlex.join(arguments)}"),
        program=_with_plugins(f"{_program()} {shlex.join(shown)}".strip()),
        version_base=HYDRA_VERSION_BASE,
    )
    with _replaced(sys.argv, {PLUGINS_VARIABLE: os.pathsep.join(plugins)}):
        sweep(request)


def _compose(overrides: list[str]) -> tuple[DictConfig, Sequence[Tuned]]:
    """The config of a single run. Half the time of Hydra's own main, which composes twice."""
    from hydra import compose, initialize_config_dir

    from distil.config.store import explained

    with explained(overrides), initialize_config_dir(str(conf_folder()), version_base=HYDRA_VERSION_BASE):
        whole = compose("config", overrides, return_hydra_config=True)
    return _single(whole.hydra, whole, overrides)


def _single(hydra: Any, config: DictConfig, arguments: Sequence[str]) -> tuple[DictConfig, Sequence[Tuned]]:
    """``config`` of a single run, without Hydra's part, and the files of tuned keys that were read.

    Raises InputError where a preset asks for a sweep, and for a label that misleads.
    """
    from omegaconf import open_dict, read_write

    from distil.config.names import refuse_labels
    from distil.config.tuned import tuned_files

    refuse_labels(hydra.runtime.choices, config.model, arguments)
    swept = [key for key in hydra.sweeper.get("params") or () if value_of(key, arguments) is None]
    if swept:
        raise InputError(
            f"This is a sweep over {', '.join(swept)}: add -m. For one run of it, give each a value, as in "
            f"{' '.join(f'{key}=…' for key in swept)}."
        )
    tuned = tuned_files(hydra)
    with read_write(config), open_dict(config):
        config.pop("hydra", None)
    return config, tuned


def _through_hydra(arguments: list[str], plugins: list[str]) -> tuple[DictConfig, Sequence[Tuned]] | None:
    """Hydra's own main, for its flags. Returns what ``_single`` does where a run is left to do."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from distil.config.store import explained

    composed: list[tuple[Any, DictConfig]] = []

    def task(config: DictConfig) -> None:
        # It runs outside: Hydra's words on a failure are not ours.
        composed.append((HydraConfig.get(), config))

    composing = hydra.main(
        version_base=HYDRA_VERSION_BASE, config_path=str(conf_folder()), config_name="config"
    )
    entry = composing(task)
    environment = {"HYDRA_FULL_ERROR": "1", PLUGINS_VARIABLE: os.pathsep.join(plugins)}
    told = io.StringIO()
    with _replaced([sys.argv[0], *arguments], environment), explained(arguments):
        try:
            with redirect_stderr(told), lossy_logging():  # --info is logged, and `… | head` may not read all
                entry()
            sys.stdout.flush()
        except ValueError as error:
            if "Config group override" in str(error):  # explained, as without flags
                raise
            raise InputError(f"{error}.") from error
        except SystemExit as error:  # Hydra's own flags, wrongly used: usage, and a last line that says why
            if error.code:
                why = told.getvalue().strip().rpartition("error: ")[2] or "A flag is wrong"
                raise InputError(f"{why}. --help shows what can be said.") from error
    print(told.getvalue(), end="", file=sys.stderr)
    return _single(*composed[0], arguments) if composed else None


@contextmanager
def _replaced(argv: list[str], environment: dict[str, str]) -> Iterator[None]:
    """``sys.argv`` and environment variables as given, put back afterwards."""
    old_argv, old = sys.argv, {name: os.environ.get(name) for name in environment}
    sys.argv = argv
    os.environ.update(environment)
    try:
        yield
    finally:
        sys.argv = old_argv
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _program() -> str:
    name, world = Path(sys.argv[0]).name, world_size()
    if world > 1:
        here = os.environ.get("LOCAL_WORLD_SIZE", str(world))
        if sharded():
            return f"accelerate launch --config_file=… --num_processes={world} {name}"
        counted = f"--nproc_per_node={here}" if here == str(world) else f"--nproc_per_node={here} --nnodes=…"
        return f"torchrun {counted} {name if name == 'run.py' else '-m distil run'}"
    return f"python {name}" if name == "run.py" else "distil run"


def _with_plugins(command: str) -> str:
    paths = os.environ.get(PLUGINS_VARIABLE)
    return f"{PLUGINS_VARIABLE}={shlex.quote(paths)} {command}" if paths else command


def _config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders after ``--config-dir``."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or following))
    return [folder for folder in found if folder.is_dir()]


if __name__ == "__main__":
    # python -m distil.cli; what is pickled for other processes must not be of __main__.
    sys.exit(importlib.import_module("distil.cli").main())
