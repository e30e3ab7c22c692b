"""The layer for Channels is tested on the servers that the layer for events is tested on."""

from tests.layers.conftest import _declared, _levels, name

__all__ = ["_declared", "_levels", "name"]
