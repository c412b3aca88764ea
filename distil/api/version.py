"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("distil-runner")
except PackageNotFoundError:  # a checkout on sys.path that was never installed
    __version__ = "0+unknown"
