"""The public name of distil-runner: for now its version. The library API will be re-exported here."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("distil-runner")
except PackageNotFoundError:  # a checkout on sys.path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
