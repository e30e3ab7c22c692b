"""One interface server, in the foreground: the forwarder on a server."""

import gc

from asgictl.config import InterfaceConfig
from asgictl.interface.forwarder import Forwarder
from asgictl.interface.hosting import check_server, host
from asgictl.layers.redis.sync_client import check_redis
from asgictl.telemetry.controller_client import Readiness


def serve(config: InterfaceConfig, readiness: Readiness) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; returns whether it had started. Raises AsgictlError."""
    check_server(config.server)
    check_redis(config.redis_url)
    listener = config.bind.listen()
    forwarder = Forwarder(config, readiness)
    # Nearly all that an interface makes dies by its reference count: looking for cycles each 700 objects cost 5%.
    gc.freeze()
    gc.set_threshold(5000, 5, 2)
    started = host(forwarder, listener, config.server, config.trusted, config.root_path, config.uvicorn)
    config.bind.release()
    return started
