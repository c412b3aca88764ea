"""The end of a run in the terminal: results, three samples, the cost, where the rest lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distil.report import palette, words
from distil.report.run_directory import Metric, Results, RunRecord, Sample
from distil.run_files import REPORT
from distil.system.printable import one_line, printable

SAMPLES = 3
SIDE_BY_SIDE = 100
"""Columns from which samples stand side by side; below, they are stacked."""
LONGEST = 240
"""Characters shown of one text."""
NOTE = 1000
"""Characters shown of a note or a reason, which wrap: at their end stands what can be done."""

_PLAIN = {
    "↑": "^",
    "↓": "v",
    "–": "-",
    "…": "...",
    "−": "-",
    "±": "+-",
    "★": "*",
    "≈": "=",
    "×": "x",
    "⏎": "/",
}
"""For consoles that have ASCII alone."""

Show = Callable[[str], str]
"""Makes a text fit for this console: no escape sequences, only characters that its encoding has."""


def print_summary(run: RunRecord, console: Console) -> None:
    """Print what ``run`` did. Call it after ``write_report``: it names the report only if it is there.

    Texts of data and models are shown as they are: neither markup nor escape sequences in them take effect.
    """
    show = fitted(console)
    console.print(_title(run, show))
    console.print()
    if run.results is not None:
        if run.results.metrics:
            console.print(_table(run.results, show))
            console.print()
        for line, style in _remarks(run.results):
            console.print(Text(show(line), style=style))
    for sample in run.samples[:SAMPLES]:
        console.print()
        console.print(
            _side_by_side(sample, show) if console.width >= SIDE_BY_SIDE else _stacked(sample, show)
        )
    console.print()
    _print_facts(console, run, show)


def fitted(console: Console) -> Show:
    """What makes texts fit for ``console``."""
    encoding = console.encoding
    plain = str.maketrans(_PLAIN if console.options.ascii_only else {})

    def show(text: str) -> str:
        return printable(text).translate(plain).encode(encoding, "replace").decode(encoding)

    return show


def _title(run: RunRecord, show: Show) -> Text:
    style = {"done": "bold green", "failed": "bold red"}.get(run.status, "bold yellow")
    title = Text.assemble((show(run.path.resolve().name), "bold"), "  ", (show(run.status), style))
    if run.reason:
        title.append(f": {show(one_line(run.reason, NOTE))}")
    return title


def _table(results: Results, show: Show) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    heads = [("teacher", palette.TEACHER.terminal)] if results.teacher is not None else []
    heads += [
        ("before", palette.BEFORE.terminal),
        ("after", f"bold {palette.AFTER.terminal}"),
        ("change", ""),
    ]
    heads += [("floor", "dim")] if results.floor else []
    for head, style in heads:
        table.add_column(head, justify="left" if head == "change" else "right", style=style, no_wrap=True)
    for metric in results.metrics:
        table.add_row(*_row(results, metric, show))
    return table


def _row(results: Results, metric: Metric, show: Show) -> Iterator[Text]:
    name = Text(show(f"{metric.name} {words.arrow(metric)}".rstrip()))
    yield name.append(show(f" {metric.unit}"), style="dim") if metric.unit else name
    for scores in (results.teacher, results.before, results.after):
        if scores is not None:
            yield Text(show(words.score(scores.get(metric.name), metric)))
    change = words.change(results, metric)
    style = {"better": "green", "worse": "red"}.get(change.verdict, "")
    yield Text(show(f"{change.text} {change.verdict}".rstrip()), style=style)
    if results.floor:
        floor = results.floor.get(metric.name)
        yield Text("" if floor is None else show(words.score(floor, metric)))


def _remarks(results: Results) -> Iterator[tuple[str, str]]:
    """Each line below the table, and its style."""
    legend = "↑ higher is better, ↓ lower is better." + (f" {words.FLOOR}." if results.floor else "")
    yield legend if results.metrics else "No metric was computed.", "dim"
    if evaluated := words.evaluated_on(results):
        yield evaluated, "dim"
    for note in words.notes(results):
        yield f"Note: {one_line(note, NOTE)}", ""


def _prompt(sample: Sample, show: Show) -> Text:
    return Text.assemble(("prompt  ", "dim"), (show(one_line(sample.prompt, LONGEST)), "bold"))


def _side_by_side(sample: Sample, show: Show) -> Table:
    texts = list(words.texts(sample))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 2, 0, 0),
        expand=True,
        title=_prompt(sample, show),
        title_justify="left",
        title_style="",
    )
    for role, _ in texts:
        table.add_column(role.label, header_style=f"bold {role.terminal}", ratio=1, overflow="fold")
    table.add_row(*(Text(show(one_line(text, LONGEST))) for _, text in texts))
    return table


def _stacked(sample: Sample, show: Show) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text("prompt", style="dim"), Text(show(one_line(sample.prompt, LONGEST)), style="bold"))
    for role, text in words.texts(sample):
        table.add_row(Text(role.label, style=role.terminal), Text(show(one_line(text, LONGEST))))
    return table


def _print_facts(console: Console, run: RunRecord, show: Show) -> None:
    """Cost and paths. Paths are neither cut nor broken into lines: they are there to be copied."""
    facts: list[tuple[str, Text]] = []
    if run.cost is not None:
        facts.append(("cost", Text(show(words.cost_sentence(run.cost)))))
        if line := words.taken_over(run.cost):
            facts.append(("", Text(show(line), style="dim")))
    facts += [("unreadable", Text(show(one_line(problem, LONGEST)))) for problem in run.problems]
    paths: list[tuple[str, str]] = []
    if run.status in ("failed", "interrupted") and run.way_on:
        paths.append(("go on with", run.way_on))
    if (run.path / REPORT).is_file():
        paths.append(("report", str(run.path / REPORT)))
    if run.student is not None:
        paths.append(("student", f"{run.student}/"))
    width = max((len(label) for label, _ in [*facts, *paths]), default=0)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim", width=width)
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(*fact)
    console.print(table)
    for label, path in paths:
        console.print(Text.assemble((f"{label:<{width}}  ", "dim"), (show(path), "bold")), soft_wrap=True)
