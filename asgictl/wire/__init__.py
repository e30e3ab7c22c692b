"""What crosses between processes: messages, the manifest, routing, ASGI."""
