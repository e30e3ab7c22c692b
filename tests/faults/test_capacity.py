"""What waits in Redis is bounded in bytes: large messages cannot fill it, and none of them is lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import redis
from websockets.sync.client import connect

from asgictl.config import CHANNEL_BYTES
from asgictl.layers.redis.keys import Keys
from tests.conftest import until
from tests.faults.conftest import Serve

HELD = """
    import time
    from pathlib import Path

    from asgictl import Application, path


    def receive(message):
        while not Path("go").exists():
            time.sleep(0.02)
        message.reply(text=str(len(message.data)))


    app = Application(websocket=[path("/ws", receive=receive)])
"""
SOCKETS = 90
MESSAGE_BYTES = (1 << 20) - 1000
SECONDS = 60.0


def test_large_messages_wait_outside_of_redis_past_64_mib(serve: Serve, tmp_path: Path) -> None:
    """The one worker stands still; then it goes on, and every message is answered."""
    machine = serve(HELD, "--workers", "1", "--timeout", "0")
    stream = Keys("default").channel("websocket.receive")
    url = f"ws://127.0.0.1:{machine.port}/ws"
    with (
        ExitStack() as stack,
        closing(redis.Redis(unix_socket_path=f"{machine.runtime}/asgictl/default/redis.sock")) as client,
    ):
        sockets = [stack.enter_context(connect(url, compression=None)) for _ in range(SOCKETS)]
        pool = stack.enter_context(ThreadPoolExecutor(8))
        list(pool.map(lambda socket: socket.send(bytes(MESSAGE_BYTES)), sockets))
        assert all(pool.map(lambda each: each.ping().wait(SECONDS), sockets)), "all have come: pongs come behind them"
        held = [0]

        def fills() -> bool:
            held.append(client.memory_usage(stream, samples=0) or 0)
            return held[-1] > CHANNEL_BYTES - MESSAGE_BYTES

        until(fills, "the channel fills", SECONDS)
        (tmp_path / "go").touch()
        answers = [pool.submit(socket.recv, SECONDS) for socket in sockets]
        until(lambda: not fills() and all(each.done() for each in answers), "all are answered", SECONDS)
        assert [each.result() for each in answers] == [str(MESSAGE_BYTES)] * SOCKETS
        assert max(held) < CHANNEL_BYTES + (3 << 20)
        assert client.xlen(stream) == 0
