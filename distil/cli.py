"""The command: ``python run.py …`` and ``distil run …`` compose a config and run it.

Exit codes are mapped here alone: 0 done, 1 failed, 2 bad input, 130 interrupted. Bad input ends in one
message, before anything heavy is imported.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distil.config.command_line import (
    PLUGINS_VARIABLE,
    check_arguments,
    expand,
    flags_first,
    plugin_paths,
    value_of,
)
from distil.config.help import conf_folder, help_text
from distil.registry import load_plugins, unknown_name
from distil.types import DistilError, InputError, RunInterrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_VERSION_BASE = "1.3"
VERBS = {
    "run": "distil, judge, report: the same as python run.py",
    "report": "RUN_FOLDER: write its report again",
    "evaluate": "RUN: judge its student again, on its test rows or on a file of yours",
    "generate": "RUN --prompt TEXT: let its student answer",
    "merge": "RUN --output DIR: its adapter and base as one plain model",
}
ON_RUNS = ("evaluate", "generate", "merge")
"""Verbs that load a finished run's student: each is the module of its name in ``distil.verbs``."""


class JobFailed(DistilError):
    """A job of a sweep failed, and said so when it did."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _verb(arguments)
    except JobFailed as error:
        return error.exit_code
    except DistilError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return RunInterrupted.exit_code
    except BrokenPipeError:  # the reader of `… | head` has gone, and Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _verb(arguments: list[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb == "run":
        return run(rest)
    if verb == "report":
        return report(rest)
    if verb in ON_RUNS:
        code: int = importlib.import_module(f"distil.verbs.{verb}").main(rest)
        return code
    if verb not in ("--help", "-h"):
        raise InputError(unknown_name("distil", verb, VERBS).replace("distil=", "distil "))
    print("usage: distil VERB …\n")
    print("\n".join(f"  {name:<10}{text}" for name, text in VERBS.items()))
    print("\nEach verb has a --help of its own.")
    return 0


def report(arguments: list[str]) -> int:
    """``distil report RUN``: write the report of a run directory again and say where it is."""
    usage = "usage: distil report RUN_FOLDER"
    if "--help" in arguments or "-h" in arguments:
        print(f"{usage}\n\nWrites RUN_FOLDER/report.html again, from the other files of the run.")
        return 0
    if len(arguments) != 1:
        raise InputError(usage)
    from distil.report import write_report

    print(write_report(Path(arguments[0])))
    return 0


def run(arguments: list[str]) -> int:
    """Compose a config from ``arguments`` (overrides and Hydra's flags) and run it."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text(_program(), [conf_folder(), *_config_dirs(arguments)]))
        return 0
    check_arguments(arguments)
    plugins = plugin_paths(arguments)
    from distil.config.store import register_schemas

    register_schemas(plugins)
    flags, overrides = flags_first(arguments)
    overrides = expand(overrides)
    if flags or value_of("hydra.mode", overrides):
        config = _through_hydra([*flags, *overrides], plugins)
    else:
        config = _compose(overrides)
    if config is not None:
        _job(config, f"{_program()} {shlex.join(arguments)}".strip(), arguments)
    return 0


def _job(config: DictConfig, command: str, arguments: Sequence[str]) -> None:
    """One run, from a composed config."""
    from distil.config.store import typed
    from distil.config.validate import validate

    experiment = typed(config, arguments)
    # Those of the environment and of config files too: a run's identity covers them.
    experiment.run.plugins = list(dict.fromkeys([*plugin_paths(arguments), *experiment.run.plugins]))
    load_plugins(experiment.run.plugins)
    validate(experiment)
    from distil.experiment import run as run_experiment

    run_experiment(experiment, command=_with_plugins(command))


def _compose(overrides: list[str]) -> DictConfig:
    """The config of a single run. Half the time of Hydra's own main, which composes twice."""
    from hydra import compose, initialize_config_dir

    from distil.config.store import explained

    with explained(overrides), initialize_config_dir(str(conf_folder()), version_base=HYDRA_VERSION_BASE):
        return compose("config", overrides)


def _through_hydra(arguments: list[str], plugins: list[str]) -> DictConfig | None:
    """Hydra's own main, for its flags and its sweeps. Returns the config where a single run is left to do."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from distil.config.store import explained

    composed: list[DictConfig] = []

    def task(config: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _sweep_job(config, HydraConfig.get().job.num, list(HydraConfig.get().overrides.task))
        else:
            composed.append(config)  # runs outside Hydra, whose messages about a failed job are not ours

    entry = hydra.main(version_base=HYDRA_VERSION_BASE, config_path=str(conf_folder()), config_name="config")(
        task
    )
    with tempfile.TemporaryDirectory(prefix="distil-sweep-") as folder:
        # Hydra writes multirun.yaml, every override word by word, and cannot be told not to.
        if not any(word.startswith("hydra.sweep.dir=") for word in arguments):
            arguments = [*arguments, f"hydra.sweep.dir='{folder}'"]
        environment = {"HYDRA_FULL_ERROR": "1", PLUGINS_VARIABLE: os.pathsep.join(plugins)}
        with _replaced([sys.argv[0], *arguments], environment), explained(arguments):
            try:
                entry()
            except ValueError as error:  # from Hydra itself: a job's own errors are JobFailed by now
                raise InputError(f"{error}.") from error
            except SystemExit as error:  # Hydra's own flags, wrongly used, end with 1
                if error.code:
                    raise InputError(
                        "--help shows what can be said, --hydra-help Hydra's own flags."
                    ) from error
    return composed[0] if composed else None


def _sweep_job(config: DictConfig, number: int, overrides: list[str]) -> None:
    """One job of a sweep. A failure is told at once, and the other jobs go on; Ctrl-C ends the sweep."""
    from distil.config.store import register_schemas

    register_schemas(plugin_paths([]))  # in a launcher's child nothing is registered yet
    words = shlex.join(overrides)
    print(f"\n=== job {number}: {words}", file=sys.stderr, flush=True)
    try:
        _job(config, f"{_program()} {words}".strip(), overrides)
    except RunInterrupted as error:
        print(f"error in job {number}: {error}", file=sys.stderr)
        raise KeyboardInterrupt from error
    except Exception as error:
        failure = JobFailed(str(error))
        failure.exit_code = error.exit_code if isinstance(error, DistilError) else DistilError.exit_code
        if isinstance(error, DistilError):
            print(f"error in job {number}: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        raise failure from None


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
    name = Path(sys.argv[0]).name
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
