"""Hydra's side of a sweep: which jobs there are, and who launches them.

A grid of values is expanded here, so that its jobs are known, checked and counted before the launcher (any of
Hydra's) is given those that are left. A sweeper that finds its jobs as it goes keeps its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from distil.config.command_line import check_arguments
from distil.config.names import refuse_labels
from distil.config.saved import REGISTRIES
from distil.config.schema import ExperimentConfig
from distil.config.store import explained, prepared
from distil.identity import checked_name
from distil.preflight import locate, unused_by_all
from distil.run_log import said_once
from distil.sweeps.end import finish
from distil.sweeps.launchers import BASIC, check_installed, class_of, forget_pickles
from distil.sweeps.launching import Launcher, without_hydra
from distil.sweeps.on_ray import ray_launcher
from distil.sweeps.own_keys import fitted, keys_below, lacking
from distil.sweeps.plan import check_left, not_ranked, opening, plan
from distil.sweeps.record import DONE, FAILED, INTERRUPTED, REPORTS, Job, SweepRecord, key_of
from distil.sweeps.search import Interval, SearchSweeper
from distil.sweeps.searching import Search, finish_search, planned_search, run_search
from distil.sweeps.workers import clear
from distil.system.files import expanded
from distil.system.locks import alone
from distil.system.printable import printable
from distil.system.progress import Progress
from distil.system.scratch import scratch
from distil.system.stopping import interrupted
from distil.types import InputError, RunInterrupted

MARK = "…"
"""Stands for the values of a key that is searched."""


@dataclass(frozen=True)
class Request:
    """A sweep as it was asked for."""

    conf: Path
    config_name: str
    overrides: Sequence[str]
    """As Hydra wants them, its own among them."""
    command: str
    """What was typed."""
    program: str
    """What stands before the overrides of a job in the command that runs it alone."""
    version_base: str


def sweep(request: Request) -> None:
    """Plan, check, run, compare.

    Raises InputError before the first job, also where another sweep is at work in the folder, RunInterrupted
    after Ctrl-C or a signal, DistilError where a job failed.
    """
    with ExitStack() as stack:
        stack.enter_context(initialize_config_dir(str(request.conf), version_base=request.version_base))
        master = _composed(request)
        for part in ("launcher", "sweeper"):
            choice = str(master.hydra.runtime.choices[f"hydra/{part}"])
            check_installed(f"hydra/{part}", choice, master.hydra[part])
        ray_launcher(master.hydra.launcher)  # a key that nobody knows is told before the first job
        folder = expanded("output_dir", str(master.output_dir)) / checked_name(str(master.name))
        record = SweepRecord(folder.absolute(), key_of([request.command]))
        search, left_out = _search(master)
        with Progress(Console(stderr=True)).spinner("checking every job before the first starts"):
            jobs, notes = (None, left_out) if search else _planned(master, folder)
        stack.enter_context(alone(record.folder, None))
        record.begin(request.command, jobs or (), search.total() if search else None)
        told = (
            [search.opening(folder)] if search else opening(jobs, folder) if jobs else [f"Sweep in {folder}."]
        )
        print("\n".join([*told, *notes]), flush=True)
        place = record.folder / REPORTS / "launcher"
        if class_of(master.hydra.launcher) == BASIC:  # it makes an empty folder for each job
            place = stack.enter_context(scratch("sweep"))
        _set(master, "hydra.sweep.dir", str(place))
        stack.enter_context(said_once())
        try:
            launcher = Launcher(master, record, request.program, request.config_name, search is None)
            if search:
                studies = run_search(search, record, launcher.launch)
            elif jobs is None:
                launcher.leave_to_sweeper()
            else:
                launcher.launch([job for job in jobs if job.same_as is None and job.status != DONE])
        except (KeyboardInterrupt, RunInterrupted):
            raise _stopped(record, request) from None
        except BaseException:
            # A full disk, a damaged report: the sweep's own error is what the user must see.
            with suppress(OSError, ValueError):
                record.end(FAILED)
            raise
        finally:
            (place / "multirun.yaml").unlink(missing_ok=True)  # holds every override word by word
            forget_pickles(place)
            clear(record.folder)
        if search:
            finish_search(search, studies, record, request.command)
        else:
            finish(record, request.command, master.compare.budget)


def _composed(request: Request) -> DictConfig:
    """The config of the sweep as a whole, with Hydra's own part: values that are swept have their default.

    The default of a swept group need not have the keys of the options asked for: those are the jobs' alone.
    """
    keyed = keys_below(tuple(REGISTRIES), request.overrides)
    if not keyed:
        return _compose(request, request.overrides)
    master = _compose(request, [word for word in request.overrides if word not in keyed])
    own: list[str] = []
    if class_of(master.hydra.sweeper) in (BasicSweeper.__name__, SearchSweeper.__name__):
        swept = [word.key_or_group for word in _parsed(_swept(master)) if word.is_sweep_override()]
        own = lacking(keys_below(swept, keyed), master.hydra.runtime.choices)
    master = _compose(request, [word for word in request.overrides if word not in own])
    if own:
        task: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
        with read_write(master), open_dict(master):
            master.hydra.overrides.task = [word for word in request.overrides if word in (*task, *own)]
    return master


def _compose(request: Request, overrides: Sequence[str]) -> DictConfig:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    with explained(request.overrides):
        return hydra.compose_config(
            config_name=request.config_name,
            overrides=[*overrides, "hydra.mode=MULTIRUN"],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
        )


def _planned(master: DictConfig, folder: Path) -> tuple[list[Job] | None, list[str]]:
    """The jobs of a grid, all of them checked, and a line on each key that some or all go without.

    None for a sweeper that finds its jobs as it goes.

    Raises InputError where one cannot run; of another sweeper's, where the config that all share cannot.
    """
    if class_of(master.hydra.sweeper) != BasicSweeper.__name__:
        locate(prepared(without_hydra(master), []))
        return None, []
    words = _swept(master)
    with explained(words):
        (grid,) = BasicSweeper.split_arguments(_parsed(words), None)
    jobs, left_out = fitted(grid)
    made = [(job, _config_of(master, job)) for job in jobs]
    planned = plan(made, folder)
    configs = [config for _, config in made if isinstance(config, ExperimentConfig)]
    if class_of(master.hydra.launcher) == BASIC:  # another machine may have what this one has not
        check_left(planned, configs, _try_trainer)
    unused = unused_by_all(list(zip(jobs, configs, strict=True)))
    warnings = [*unused, *not_ranked(configs)]
    return planned, [*left_out, *(f"warning: {printable(note)}" for note in warnings)]


def _try_trainer(config: ExperimentConfig) -> None:
    """Raise InputError for what transformers refuses of ``trainer.*``. Loads it, as the first job will."""
    from distil.training import training_arguments

    training_arguments(config, Path(config.output_dir))


def _swept(master: DictConfig) -> list[str]:
    """What the sweeper is asked: the overrides of a preset, then those of the command line."""
    words = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    words += master.hydra.overrides.task
    check_arguments(words)  # a sweep's parameters may come from a file, and each becomes a job's command
    return words


def _parsed(words: list[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(words)


def _search(master: DictConfig) -> tuple[Search | None, list[str]]:
    """The search that ``hydra.sweeper`` asks for, checked, and a line on each key that some choices go
    without; None where it is another sweeper."""
    sweeper = master.hydra.sweeper
    if class_of(sweeper) != SearchSweeper.__name__:
        return None, []
    words = _swept(master)
    with explained(words):
        parsed = {override.key_or_group: override for override in _parsed(words)}  # the last word counts
        space = {
            key: _interval(each.value(), key) for key, each in parsed.items() if each.is_interval_sweep()
        }
        rest = [override for key, override in parsed.items() if key not in space]
        (grid,) = BasicSweeper.split_arguments(rest, None)
    grid = [list(job) for job in dict.fromkeys(map(tuple, grid))]  # of data.train_file=a,a one search
    if not space:
        raise InputError(
            "Nothing is searched: give a key an interval, as in "
            "'trainer.learning_rate=tag(log,interval(1e-4,1e-2))'."
        )
    marked = [
        f"{key}={MARK}" for key in space
    ]  # an interval, too, is for the options alone that have its key
    fit, left_out = fitted([[*job, *marked] for job in grid])
    combinations = [[word for word in job if word not in marked] for job in fit]
    spaces = [
        {key: space[key] for key, mark in zip(space, marked, strict=True) if mark in job} for job in fit
    ]
    if (
        "seed" not in space
        and len({word for job in combinations for word in job if word.startswith("seed=")}) > 1
    ):
        raise InputError("A search has one seed, and not one of the comparison's: add seed=1000.")
    keys = ("trials", "batch", "seed", "objective")
    settings = SearchSweeper(**{key: sweeper[key] for key in keys if sweeper.get(key) is not None})
    searched = list(zip(combinations, spaces, strict=True))
    return planned_search(searched, settings, lambda job: _config_of(master, job)), left_out


def _interval(sweep: Any, key: str) -> Interval:
    """An interval of Hydra's; that of a float lies between floats."""
    assert isinstance(sweep, IntervalSweep)
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if not low < high or (log and low <= 0):
        raise InputError(f"{key}: an interval rises{', from above 0' if log else ''}, got {low} to {high}.")
    return Interval(low, high, log, isinstance(low, int) and isinstance(high, int))


def _config_of(master: DictConfig, overrides: list[str]) -> ExperimentConfig | InputError:
    """The config of one job as its launcher will compose it, or what is wrong with it."""
    try:
        with explained(overrides):
            config = GlobalHydra.instance().config_loader().load_sweep_config(master, overrides)
        own = config.hydra.sweeper.get("params")
        if own and own != master.hydra.sweeper.get("params"):
            raise InputError(
                f"it sweeps keys of its own ({', '.join(map(str, own))}), which one job cannot. Give one "
                "such preset, by itself."
            )
        refuse_labels(config.hydra.runtime.choices, config.model, overrides)
        return prepared(without_hydra(config), overrides)
    except InputError as error:
        return error


def _stopped(record: SweepRecord, request: Request) -> RunInterrupted:
    total = record.total()  # of a search: its jobs are not all known yet
    jobs = record.end(INTERRUPTED)
    done = sum(job.status == DONE for job in jobs)
    stopped = interrupted(f"Stopped with {done} of {total or len(jobs)} jobs done")
    return type(stopped)(f"{stopped} The same command goes on:\n  {request.command}")


def _set(master: DictConfig, key: str, value: str) -> None:
    """Set one of Hydra's own keys for the sweep, and for the jobs, whose configs are composed afresh."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    with read_write(master), open_dict(master):
        OmegaConf.update(master, key, value)
        master.hydra.overrides.hydra.append(f"{key}='{quoted}'")
