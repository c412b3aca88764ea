"""Build hook: a wheel carries ``conf/`` as ``distil/conf``; an editable install finds it in the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConfHook(BuildHookInterface):  # type: ignore[type-arg]  # the builder's config is not ours
    """Map ``conf/`` into wheels only: in a checkout a second copy would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add ``conf/`` to what the wheel holds (``version`` is ``standard`` or ``editable``)."""
        if version == "standard":
            build_data["force_include"]["conf"] = "distil/conf"
