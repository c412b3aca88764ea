"""Reports: read run directories, nothing else."""

from distil.report.comparison import Comparison, compare, print_comparison, write_comparison
from distil.report.html import write_report
from distil.report.run_directory import RunRecord, read_run
from distil.report.terminal import print_summary

__all__ = [
    "Comparison",
    "RunRecord",
    "compare",
    "print_comparison",
    "print_summary",
    "read_run",
    "write_comparison",
    "write_report",
]
