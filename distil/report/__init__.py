"""Reports: read run directories, nothing else."""
