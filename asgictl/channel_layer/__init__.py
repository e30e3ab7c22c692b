"""The channel layer for Channels 3 and 4: CHANNEL_LAYERS names it."""
