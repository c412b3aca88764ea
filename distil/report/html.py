"""``report.html``: everything about one run in one file; no network, no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.report import chart, palette, words
from distil.report.run_directory import RunRecord, mapping, number, read_run
from distil.report.seal import in_few_lines
from distil.run_files import REPORT
from distil.system.files import write_text
from distil.system.printable import printable

if TYPE_CHECKING:
    import jinja2

OPEN_SAMPLES = 3
"""Samples that are shown at once; the others unfold."""
STYLE_DIGEST = "sha256-of-the-style-sheet"
SPLITS = ("train", "validation", "test")
LONGEST = 4000
"""Characters shown of one text."""


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from the other files of ``run_dir`` and return its path.

    Raises InputError if ``run_dir`` is not a run directory.
    """
    path = run_dir / REPORT
    write_text(path, render(read_run(run_dir)))
    return path


def render(run: RunRecord) -> str:
    """The page. Every text of data, models and config is escaped by Jinja; only our own SVG is not."""
    from markupsafe import Markup

    results = run.results
    page = template_environment().get_template("report.html.j2")
    ordered = sorted(run.curves.items(), key=lambda item: not item[0].startswith("validation/"))
    drawn = [(name, curve, Markup(chart.curve_chart(name, curve))) for name, curve in ordered]
    return sealed(
        page.render(
            style_digest=STYLE_DIGEST,
            run=run,
            title=run.path.resolve().name,
            facts=list(_facts(run)),
            roles=palette.ROLES,
            models=palette.MODELS,
            results=results,
            metrics=results.metrics if results else (),
            words=words,
            change=partial(words.change, results) if results else None,
            strip=lambda metric: Markup(chart.strip_chart(results, metric)) if results else "",
            notes=[*(words.notes(results) if results else ()), *run.problems, *in_few_lines(run.damaged)],
            cost=words.cost_facts(run.cost) if run.cost else [],
            curves=[(name, picture) for name, _, picture in drawn if picture],
            undrawn="; ".join(chart.undrawn(name, curve) for name, curve, picture in drawn if not picture),
            samples=[(sample.prompt, list(words.texts(sample))) for sample in run.samples],
            open_samples=OPEN_SAMPLES,
            git=mapping(run.environment.get("git")),
            versions=mapping(run.environment.get("versions")),
        )
    )


def sealed(page: str) -> str:
    """``page`` with the digest of its own style sheet in its policy: no other style takes effect."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    return page.replace(STYLE_DIGEST, digest(style), 1)  # the policy comes before any text of data


def digest(text: str) -> str:
    """What a Content-Security-Policy names ``text`` by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def template_environment() -> jinja2.Environment:
    """Templates that escape whatever they are given."""
    import jinja2
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shorten"] = shorten
    return environment


def shorten(text: str) -> str:
    """``text``, its end replaced by how much more there is where it has more than ``LONGEST`` characters."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}… ({len(text):,} characters)"


def _facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    """The line under the title: what was run, as (what, which)."""
    for group in ("method", "model", "peft", "data"):
        if name := mapping(run.config.get(group)).get("name"):
            yield group, str(name)
    if "seed" in run.config:
        yield "seed", str(run.config["seed"])
    if run.started:
        yield "started", words.moment(run.started)
    if run.results is not None:
        splits = ((split, number(run.results.data.get(f"{split}_rows"))) for split in SPLITS)
        if rows := ", ".join(f"{rows:,.0f} {split}" for split, rows in splits if rows is not None):
            yield "rows", rows
