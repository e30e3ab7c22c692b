"""One interface server, in the foreground: the forwarder on a server."""

import gc

from asgictl.config import InterfaceConfig
from asgictl.errors import FENCED_STATUS
from asgictl.interface.hosting import check_server, host
from asgictl.interface.mover import Mover
from asgictl.layers.redis.check import check_redis
from asgictl.telemetry.controller_client import Readiness


def serve(config: InterfaceConfig, readiness: Readiness) -> int:
    """Serve until SIGTERM or SIGINT, then drain. Raises AsgictlError.

    Returns the exit status: 0, 1 when it had not started, FENCED_STATUS when others have taken it for dead.
    """
    check_server(config.server)
    check_redis(config.redis_url, config.name)
    listener = config.bind.listen()
    mover = Mover(config, readiness)
    # Nearly all that an interface makes dies by its reference count: looking for cycles each 700 objects cost 5%.
    gc.freeze()
    gc.set_threshold(5000, 5, 2)
    settings = (config.server, config.trusted, config.root_path, config.uvicorn)
    started = host(mover.forwarder, listener, *settings, mover)
    config.bind.release()
    return FENCED_STATUS if mover.forwarder.is_fenced else 0 if started else 1
