"""What a forked child keeps, in processes of their own: this one is not to be guarded for ever."""

import subprocess
import sys
import textwrap

import pytest

BEFORE = """
import asyncio, os, select, signal, socket, stat, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import uvloop
from asgictl.machine import forks

def is_null(descriptor):
    return os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev

def status_of(pid, seconds=50):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the child lives on")

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
pair = socket.socketpair()
"""


def run(code: str, *arguments: str) -> None:
    """Run a program to its end; it must exit with 0."""
    program = textwrap.dedent(BEFORE) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_ours_leads_nowhere_in_a_child_and_what_is_the_applications_stays() -> None:
    run("""
    forks.guard()
    forks.hold(pair[0])
    forks.hold_listener(listener)
    double = os.dup(listener.fileno())
    if not (pid := os.fork()):
        ours = [pair[0].fileno(), listener.fileno(), double, accepted.fileno()]
        others = [client.fileno(), pair[1].fileno()]
        os._exit(not (forks.is_child and all(map(is_null, ours)) and not any(map(is_null, others))))
    assert status_of(pid) == 0
    assert not forks.is_child and not is_null(listener.fileno())
    """)


def test_the_other_end_hears_the_parents_end_while_a_child_lives() -> None:
    run("""
    forks.guard()
    forks.hold_listener(listener)
    release, wait = os.pipe()
    if not (pid := os.fork()):
        os.close(wait)
        os.read(release, 1)
        os._exit(0)
    time.sleep(0.2)
    accepted.close()
    client.settimeout(60)
    assert client.recv(1) == b""
    os.close(wait)
    assert status_of(pid) == 0
    """)


def test_a_listener_of_a_unix_socket_is_known_by_its_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    run(
        """
        there = socket.socket(socket.AF_UNIX)
        there.bind(sys.argv[1])
        there.listen()
        near = socket.socket(socket.AF_UNIX)
        near.connect(sys.argv[1])
        far, _ = there.accept()
        forks.guard()
        forks.hold_listener(there)
        if not (pid := os.fork()):
            os._exit(not (is_null(there.fileno()) and is_null(far.fileno()) and not is_null(near.fileno())))
        assert status_of(pid) == 0
        """,
        str(tmp_path_factory.mktemp("s") / "s"),
    )


def test_nothing_happens_to_a_child_of_a_process_that_runs_no_handlers() -> None:
    """As gunicorn, whose children are its servers."""
    run("""
    forks.hold(pair[0])
    if not (pid := os.fork()):
        os._exit(forks.is_child or is_null(pair[0].fileno()))
    assert status_of(pid) == 0
    """)


def test_a_child_is_ended_by_a_signal_and_its_parent_does_not_hear_of_it() -> None:
    run("""
    heard = []
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 1)
        forks.guard()
        if not (pid := os.fork()):
            time.sleep(100)
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        assert await asyncio.to_thread(status_of, pid) == -signal.SIGTERM
        await asyncio.sleep(0.1)
        assert not heard
    asyncio.run(main())
    """)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "ends_by", ["return", "await asyncio.sleep(0)", "await asyncio.sleep(9)", "raise SystemExit(3)"]
)
def test_a_child_of_a_task_ends_with_the_step_that_forked(loop: str, ends_by: str) -> None:
    """What is ready on the event loop besides would run twice."""
    run(f"""
    steps, told = os.pipe()
    pids = []

    async def forking():
        await asyncio.sleep(0)
        if pid := os.fork():
            pids.append(pid)
            return
        {ends_by}

    async def neighbour():
        for _ in range(5):
            os.write(told, b"n")
            await asyncio.sleep(0)

    async def main():
        forks.guard()
        await asyncio.gather(forking(), *(neighbour() for _ in range(10)))
        assert await asyncio.to_thread(status_of, pids[0]) == 0

    {loop}.run(main())
    assert len(os.read(steps, 999)) == 50
    """)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_of_a_callback_ends_at_the_loops_next_turn(loop: str) -> None:
    run(f"""
    pids = []
    async def main():
        forks.guard()
        asyncio.get_running_loop().call_soon(lambda: pids.append(os.fork()))
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(status_of, pids[0]) == 0
    {loop}.run(main())
    """)


def test_a_process_that_multiprocessing_forks_on_a_loop_runs_to_its_end() -> None:
    run("""
    import multiprocessing
    def work():
        async def inner():
            await asyncio.sleep(0.01)
            return 7
        sys.exit(asyncio.run(inner()))
    async def main():
        forks.guard()
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        await asyncio.to_thread(child.join, 60)
        assert child.exitcode == 7
    uvloop.run(main())
    """)


def test_a_child_of_an_executor_ends_and_runs_nothing_that_others_have_queued() -> None:
    run("""
    ran, told = os.pipe()
    forks.guard()
    with ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        pool.submit(gate.wait)
        forked = pool.submit(os.fork)
        others = [pool.submit(os.write, told, b"o") for _ in range(5)]
        gate.set()
        assert status_of(forked.result()) == 0
    assert os.read(ran, 99) == b"ooooo"
    """)


def test_a_child_of_anyios_thread_ends() -> None:
    run("""
    import anyio
    async def main():
        forks.guard()
        pid = await anyio.to_thread.run_sync(os.fork)
        assert await asyncio.to_thread(status_of, pid) == 0
    asyncio.run(main())
    """)


def test_a_child_does_not_connect_as_its_parent(url: str) -> None:
    run(
        """
        from asgictl.layers.redis.sync_connection import SyncConnection
        from asgictl.layers.redis.worker_side import RedisWorkerLayer
        layer = RedisWorkerLayer(sys.argv[1], "forks", "one", ["http.request"])
        layer.connect()
        forks.guard()
        if not (pid := os.fork()):
            assert is_null(layer._connection.fileno())
            layer.flush()
            try:
                SyncConnection(sys.argv[1])
            except forks.Forked:
                os._exit(0)
        assert status_of(pid) == 0
        assert layer.read(1) == []
        layer.close()
        """,
        url,
    )


def test_links_and_clients_of_redis_are_held(url: str) -> None:
    run(
        """
        from asgictl.layers.redis.link import Link
        from asgictl.layers.redis.sync_client import _client
        def sockets():
            return [n for n in map(int, os.listdir("/dev/fd")) if n < 900 and is_socket(n)]
        def is_socket(n):
            try:
                return stat.S_ISSOCK(os.fstat(n).st_mode)
            except OSError:
                return False
        async def main():
            before = set(sockets())
            link = Link(sys.argv[1])
            await link.start()
            _client(sys.argv[1]).ping()
            assert len(set(sockets()) - before) == 2
            forks.guard()
            if not (pid := os.fork()):
                os._exit(len(set(sockets()) - before))
            assert await asyncio.to_thread(status_of, pid) == 0
            assert await link.ask("PING") == b"PONG"
            await link.stop()
        asyncio.run(main())
        """,
        url,
    )


def test_a_listener_is_taken_out_of_reach_of_programs() -> None:
    run("""
    import subprocess
    os.dup2(listener.fileno(), 0)
    taken = forks.take_listener(0)
    assert taken.getsockname() == listener.getsockname()
    assert is_null(0)
    code = "import os, sys; sys.exit(any(os.path.exists(f'/dev/fd/{n}') for n in range(3, 30) if n != 3))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    """)
