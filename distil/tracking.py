"""Where scalars, samples and results go besides the run directory: Weights & Biases, TensorBoard, nowhere.

Nothing is sent or written with a secret in it, and a tracker is finished however its run ends.
"""

from __future__ import annotations

import html
import logging
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies

from distil.redact import redact
from distil.registry import unknown_name
from distil.types import InputError

if TYPE_CHECKING:
    from distil.config.schema import TrackerConfig

logger = logging.getLogger(__name__)

_Mode = Literal["online", "offline", "disabled", "shared"]

NETWORK_SECONDS = 2.0
"""How long a server has to answer before a run is recorded offline."""


class Tracker(ABC):
    """One run's record somewhere else. A context manager: left by an error, it is finished as failed."""

    @abstractmethod
    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Record scalars of optimizer step ``step``; their names say unit and denominator."""

    @abstractmethod
    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as one table; the keys of the first row are its columns."""

    @abstractmethod
    def summary(self, results: Mapping[str, Any]) -> None:
        """Record the final numbers; nested names are joined by ``/``, what is no number is left out."""

    @abstractmethod
    def finish(self, exit_code: int = 0) -> None:
        """Write everything out and close. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = 0 if error is None else int(getattr(error, "exit_code", 1))
        try:
            self.finish(code)
        except Exception:
            # The run's own result or error is what the user must see, not this one.
            logger.exception("The tracker could not be closed")


class NoTracker(Tracker):
    """``tracker=none``: the run directory is all."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def summary(self, results: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, exit_code: int = 0) -> None:
        """Do nothing."""


class WandbTracker(Tracker):
    """``tracker=wandb``: online with a key and a network, else offline inside the run directory."""

    def __init__(
        self,
        config: TrackerConfig,
        run_dir: Path,
        run_config: Mapping[str, Any],
        run_name: str,
        identity: str,
    ) -> None:
        import wandb

        mode, why = _wandb_mode()
        self._wandb = wandb
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            tags=list(config.tags) or None,
            name=run_name,
            id=identity,
            # The same identity goes on with the same run; offline there is nothing to ask.
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(run_dir),
            reinit="finish_previous",  # whoever left a run open in this process does not get our scalars
            config=redact(dict(run_config)),
            # Its metadata would hold the command line and the environment word for word.
            settings=wandb.Settings(console="off", x_disable_meta=True, disable_git=True, save_code=False),
        )
        if mode == "offline":
            logger.warning(
                "tracker=wandb records offline (%s). Later: wandb sync %s", why, Path(self._run.dir).parent
            )
        self._open = True

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Record scalars of one step."""
        self._run.log(dict(scalars), step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as the table ``samples``."""
        if rows:
            columns = list(rows[0])
            data = [[row.get(column) for column in columns] for row in rows]
            self._run.log(
                {"samples": self._wandb.Table(columns=[*columns], data=data, allow_mixed_types=True)}
            )

    def summary(self, results: Mapping[str, Any]) -> None:
        """Record the final numbers in the run's summary."""
        self._run.summary.update(_numbers(results))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run with its exit code."""
        if self._open:
            self._open = False
            self._run.finish(exit_code=exit_code)


class TensorBoardTracker(Tracker):
    """``tracker=tensorboard``: event files in ``<run>/tensorboard``."""

    def __init__(self, config: TrackerConfig, run_dir: Path, run_config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"))
        self._config = {
            key: _hyperparameter(value) for key, value in _leaves(redact(dict(run_config))).items()
        }
        self._step = 0
        self._open = True

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Record scalars of one step."""
        self._step = step
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as a Markdown table, one row a sample."""
        if rows:
            columns = list(rows[0])
            lines = [columns, ["---"] * len(columns)]
            lines += [[_cell(row.get(column)) for column in columns] for row in rows]
            text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            self._writer.add_text("samples", text, self._step)

    def summary(self, results: Mapping[str, Any]) -> None:
        """Record the config beside the final numbers, so that runs can be compared by both."""
        numbers = {f"result/{name}": value for name, value in _numbers(results).items()}
        self._writer.add_hparams(self._config, numbers, run_name=".")

    def finish(self, exit_code: int = 0) -> None:
        """Record the exit code and close the files."""
        if self._open:
            self._open = False
            self._writer.add_scalar("run/exit_code", exit_code, self._step)
            self._writer.close()


TRACKERS = ("none", "tensorboard", "wandb")


def check_tracker(config: TrackerConfig) -> None:
    """Raise InputError for an unknown tracker or one whose package is missing. Cheap: imports nothing."""
    if config.name not in TRACKERS:
        raise InputError(unknown_name("tracker", config.name, TRACKERS))
    if config.name != "none" and find_spec(config.name) is None:
        raise InputError(
            f"tracker={config.name} needs the package {config.name}: "
            f'pip install "distil-runner[{config.name}]", or tracker=none.'
        )


def start_tracker(
    config: TrackerConfig, run_dir: Path, run_config: Mapping[str, Any], run_name: str, identity: str
) -> Tracker:
    """The tracker that ``config`` names, started.

    Args:
        config: which tracker, and its project, entity, group, tags.
        run_dir: where its files go.
        run_config: the resolved config; secrets are hidden before it leaves this function.
        run_name: what a person reads.
        identity: what makes the same run the same; a rerun needs one of its own (``<identity>-r2``).

    Raises InputError as ``check_tracker`` does.
    """
    check_tracker(config)
    if config.name == "wandb":
        return WandbTracker(config, run_dir, run_config, run_name, identity)
    if config.name == "tensorboard":
        return TensorBoardTracker(config, run_dir, run_config)
    return NoTracker()


def _wandb_mode() -> tuple[_Mode, str]:
    """How W&B is to run, and why not online. The user's WANDB_MODE wins."""
    import wandb

    asked = os.environ.get("WANDB_MODE")
    for mode in get_args(_Mode):
        if asked == mode:
            return mode, f"WANDB_MODE={asked}"
    if not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False, verify=False):
        return "offline", "no WANDB_API_KEY and no wandb login"
    server = wandb.setup().settings.base_url
    if not reachable(server):
        return "offline", f"no answer from {server} within {NETWORK_SECONDS:g} s"
    return "online", ""


def reachable(url: str, seconds: float = NETWORK_SECONDS) -> bool:
    """Whether the server of ``url``, or the proxy on the way, accepts a connection within ``seconds``."""
    scheme = urlsplit(url).scheme or "https"
    target = urlsplit(getproxies().get(scheme, url))
    address = (target.hostname or "", target.port or (80 if target.scheme == "http" else 443))
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
            answered.set()
        except OSError:
            pass
        finally:
            finished.set()

    finished = threading.Event()
    # In a thread: the look-up of a name obeys no timeout of ours.
    threading.Thread(target=connect, daemon=True).start()
    finished.wait(seconds)
    return answered.is_set()


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            inner: leaf
            for key, item in value.items()
            for inner, leaf in _leaves(item, f"{name}/{key}" if name else str(key)).items()
        }
    return {name: value}


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in _leaves(results).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _hyperparameter(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _cell(value: Any) -> str:
    """One cell of a Markdown table: text is shown, never taken as markup."""
    text = "" if value is None else str(value)
    return html.escape(text, quote=False).replace("|", "&#124;").replace("\n", "<br>")
