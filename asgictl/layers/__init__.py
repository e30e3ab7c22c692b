"""Channel layers: what carries events between processes.

RedisChannelLayer and InMemoryChannelLayer are for CHANNEL_LAYERS of Channels 3 and 4, which alone needs them.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "RedisChannelLayer":
        from asgictl.channel_layer.redis import RedisChannelLayer

        return RedisChannelLayer
    if name == "InMemoryChannelLayer":
        from asgictl.channel_layer.base import InMemoryChannelLayer

        return InMemoryChannelLayer
    raise AttributeError(name)
