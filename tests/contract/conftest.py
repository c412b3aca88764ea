"""What DISTIL_PLUGINS names is registered before any contract is collected."""

import tests.training  # noqa: F401  # loads them
