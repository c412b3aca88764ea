"""Reports: read run directories, nothing else."""

from distil.report.html import write_report
from distil.report.run_directory import RunRecord, read_run
from distil.report.terminal import print_summary

__all__ = ["RunRecord", "print_summary", "read_run", "write_report"]
