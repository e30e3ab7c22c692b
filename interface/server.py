"""Hosts the forwarder on uvicorn, in the foreground."""

import logging
import signal

import uvicorn

from asgictl.configuration import InterfaceConfig
from asgictl.interface.corked import CorkedProtocol
from asgictl.interface.forwarder import Forwarder
from asgictl.layers.redis import check_redis
from asgictl.readiness import Readiness


def serve(config: InterfaceConfig, readiness: Readiness) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; returns whether it had started. Raises AsgictlError."""
    check_redis(config.redis_url)
    listener = config.bind.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            Forwarder(config, readiness),
            loop="uvloop",
            http=CorkedProtocol,
            ws="websockets-sansio",
            ws_max_size=config.limits.message_bytes,
            # The server stops reading while an inbox is full and would then miss the pong (DESIGN, section 5).
            ws_ping_timeout=70,
            forwarded_allow_ips=config.trusted,
            root_path=config.root_path,
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level=logging.WARNING,
            timeout_graceful_shutdown=int(config.limits.drain_seconds),
            **{"ws_per_message_deflate": False, **config.uvicorn},
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has drained
        signal.signal(number, lambda _number, _frame: None)
    server.run(sockets=[listener])
    config.bind.release()
    return server.started
