"""Build the saved W&B workspace that compares a project's runs: methods over seeds, curves, cost, samples.

    python scripts/wandb_workspace.py --entity NAME --group SWEEP
    python scripts/wandb_workspace.py --print

The first saves a view in the project and says its address; it needs a key (``wandb login``) and a network.
The second prints what would be saved, and needs neither. ``--by peft`` compares adapters; without a group
all runs of the project are compared. It wants the package ``wandb-workspaces``, which is part of the
extra ``wandb``: pip install -e ".[wandb]".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Works in a checkout where distil is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distil.config.schema import TrackerConfig
from distil.system.extras import install
from distil.types import DistilError, InputError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

GROUPS = ("method", "model", "peft", "data")
"""Groups whose option is shown by its name."""

QUALITY = {
    "student_after/nll": "negative log-likelihood, nats a token",
    "student_after/kl_to_teacher": "KL(teacher || student), nats a token",
    "student_after/top1_agreement": "teacher's most likely token is the student's, share",
    "student_after/rougeL": "ROUGE-L",
}
"""Final scores, with their units, in the order of the panels. A run without one is left out of its panel."""

CURVES = {
    "validation/nll_per_token": "nats a token",
    "validation/kl_per_token": "nats a token",
    "train/loss": "nats a token, weighted by the method",
}

AXES = {"Step": "optimizer steps", "train/tokens": "scored tokens", "train/seconds": "s of training"}
"""What curves are drawn over."""

COST = {
    "cost/seconds/train": "s of training",
    "cost/peak_memory_bytes": "bytes of memory at the peak",
    "cost/parameters/trainable": "trained parameters",
}

TABLES = ("results", "samples")


def main() -> int:
    """Save the workspace, or print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", help="user or team that the project belongs to; default: the key's own")
    parser.add_argument("--project", default=TrackerConfig.project, help="default: %(default)s")
    parser.add_argument("--group", help="the sweep (tracker.group, else the runs' name); default: all runs")
    parser.add_argument(
        "--by", default="method", metavar="KEY", help="config key to compare by; default: method"
    )
    parser.add_argument(
        "--print", "--dry-run", action="store_true", dest="dry", help="print the spec; nothing is sent"
    )
    arguments = parser.parse_args()
    try:
        entity = arguments.entity or ("ENTITY" if arguments.dry else own_entity())
        built = workspace(entity, arguments.project, arguments.group, arguments.by)
        if arguments.dry:
            print(json.dumps(spec(built), indent=2))
        else:
            print(save(built))
    except DistilError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def workspace(entity: str, project: str, group: str | None = None, by: str = "method") -> Workspace:
    """The workspace, not yet saved. ``by``: the config key whose values are compared, seeds folded."""
    ws = _package()
    key = f"{by}.name" if by in GROUPS else by
    sections = [
        ws.Section(name=f"By {by}, over seeds", panels=_bars(key), is_open=True),
        ws.Section(name="Curves", panels=_curves(key), is_open=True),
        ws.Section(name="Quality against cost", panels=_quality_against_cost(), is_open=True),
        ws.Section(name="Results and samples", panels=_tables(), is_open=True),
    ]
    built: Workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=f"Distillation by {by}" + (f": {group}" if group else ""),
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == group) if group else "",
            groupby=[ws.Config(key)],
            order=[ws.Ordering(ws.Summary(next(iter(QUALITY))), ascending=True)],
            pinned_columns=[f"config:{name}.value.name" for name in ("method", "model", "peft")]
            + ["config:seed.value", *(f"summary:{metric}" for metric in QUALITY)],
        ),
    )
    return built


def spec(built: Workspace) -> dict[str, Any]:
    """What would be sent."""
    model = built._to_model()
    told: dict[str, Any] = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entity": model.entity, "project": model.project, "name": model.display_name, "spec": told}


def save(built: Workspace) -> str:
    """Save a new view in the project; its address. Raises InputError for what W&B refuses."""
    try:
        built.save()  # type: ignore[no-untyped-call]  # theirs has no types
    except Exception as error:  # of a library that raises what its transport raises
        raise InputError(
            f"W&B did not take the workspace of {built.entity}/{built.project} ({error}). Is the project "
            "there, and may the key write to it? --print shows the workspace without a network."
        ) from error
    return str(built.url)


def own_entity() -> str:
    """Whom the key belongs to. Raises InputError without a key or a network."""
    import wandb

    try:
        entity = wandb.Api().default_entity
    except Exception as error:
        raise InputError(
            f"W&B does not say whose key this is ({error}). Set WANDB_API_KEY or run wandb login; --print "
            "needs neither."
        ) from error
    if not entity:
        raise InputError("The key has no default entity: give --entity NAME.")
    return str(entity)


def _bars(key: str) -> list[Any]:
    wr = _panels()
    grouped = {"groupby": wr.Config(key), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    return [
        wr.BarPlot(title=f"{metric} ({unit}), mean ± standard error", metrics=[metric], **grouped)
        for metric, unit in QUALITY.items()
    ]


def _curves(key: str) -> list[Any]:
    wr = _panels()
    grouped = {"groupby": wr.Config(key), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    return [
        wr.LinePlot(title=f"{metric} over {axis}", x=axis, y=[metric], title_x=named, title_y=unit, **grouped)
        for metric, unit in CURVES.items()
        for axis, named in AXES.items()
    ]


def _quality_against_cost() -> list[Any]:
    wr = _panels()
    quality = next(iter(QUALITY))
    return [
        wr.ScatterPlot(
            title=f"{quality} against {unit}",
            x=wr.SummaryMetric(cost),
            y=wr.SummaryMetric(quality),
            log_x=True,
        )
        for cost, unit in COST.items()
    ]


def _tables() -> list[Any]:
    wr = _panels()
    return [wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=12)) for name in TABLES]


def _package() -> Any:
    try:
        from wandb_workspaces import workspaces
    except ImportError as error:
        raise InputError(f"This needs the package wandb-workspaces: {install('wandb')}") from error
    return workspaces


def _panels() -> Any:
    from wandb_workspaces.reports import v2

    return v2


if __name__ == "__main__":
    sys.exit(main())
