"""The connections that a URL of Redis leads to; with TLS too, behind a front that ends it."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asgictl.errors import RedisError
from asgictl.layers import RedisChannelLayer
from asgictl.layers.redis.check import check_redis
from asgictl.layers.redis.endpoint import Endpoint, endpoint
from asgictl.layers.redis.link import Link, pack
from asgictl.layers.redis.sync_client import ask
from asgictl.layers.redis.sync_connection import SyncConnection
from tests.conftest import free_port, scenario

DAY = timedelta(days=1)


def test_a_file_that_cannot_be_read_is_refused_by_its_option() -> None:
    with pytest.raises(RedisError, match="ssl_ca_certs is /absent, which cannot be read"):
        Endpoint("rediss://h?ssl_ca_certs=/absent")


@pytest.mark.parametrize(
    ("url", "user", "shown"),
    [
        ("redis://h", "default", "h"),
        ("redis://u:p@h:1/2?client_name=x", "u", "h:1/2"),
        ("rediss://:p@h", "default", "h"),
        ("unix:///run/s?password=p", "default", "/run/s"),
        ("redis+sentinel://u:p@[::1]:1,h/s/2?sentinel_password=q", "u", "[::1]:1,h/s/2"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, user: str, shown: str) -> None:
    found = endpoint(url)
    assert (found.user, found.shown) == (user, shown)
    assert endpoint(url) is found


class Certificates(NamedTuple):
    """Files of an authority, of a server on 127.0.0.1 and a client that it has signed, and of another authority."""

    authority: Path
    server: Path
    client: Path
    other: Path


def certificate(
    path: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    """Write a certificate and its key into a file; its own authority unless there is an issuer."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signing = issuer or (subject, key)
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(signer, subject, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    made = made.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    pem, formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(pem, formats, serialization.NoEncryption())
    path.write_bytes(made.sign(signing, hashes.SHA256()).public_bytes(pem) + private)
    return subject, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("tls")
    found = Certificates(*(directory / f"{name}.pem" for name in Certificates._fields))
    authority = certificate(found.authority, "authority")
    certificate(found.server, "server", authority)
    certificate(found.client, "client", authority)
    certificate(found.other, "other")
    return found


class Front:
    """Ends TLS before a Redis on a Unix socket, from `with` to its end; whoever has no certificate is turned away."""

    def __init__(self, url: str, certificates: Certificates) -> None:
        self._path = url.removeprefix("unix://")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authority))
        self._context.load_cert_chain(certificates.server)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = free_port()

    def __enter__(self) -> "Front":
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return self

    def __exit__(self, *_raised: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(self._path)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, to_redis))
                both.create_task(self._forward(from_redis, writer))
        except* OSError:
            pass
        finally:
            for each in (to_redis, writer):
                each.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        raise ConnectionError("one end has left: so does the other")


@pytest.fixture
def front(url_of_valkey: str, certificates: Certificates) -> Iterator[Front]:
    with Front(url_of_valkey, certificates) as made:
        yield made


def tls(front: Front, authority: Path, own: Path | None) -> str:
    pair = f"&ssl_certfile={own}&ssl_keyfile={own}" if own else ""
    return f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={authority}{pair}"


@scenario
async def test_every_connection_and_the_channel_layer_speak_tls(front: Front, certificates: Certificates) -> None:
    url = tls(front, certificates.authority, certificates.client)
    await asyncio.to_thread(check_redis, url, "n")
    assert await asyncio.to_thread(ask, url, lambda client: client.echo("client")) == b"client"
    connection = await asyncio.to_thread(SyncConnection, url)
    assert not connection.was_cut()
    connection.send(pack(("ECHO", "sync" * 50_000)))
    assert await asyncio.to_thread(connection.receive) == b"sync" * 50_000
    connection.close()
    link = Link(url)
    await link.start()
    assert await link.ask("ECHO", b"link" * 50_000) == b"link" * 50_000
    await link.stop()
    layer = RedisChannelLayer([url], "tls")
    await layer.send("channel", {"type": "x"})
    assert await layer.receive("channel") == {"type": "x"}


def test_a_server_of_another_authority_and_a_client_without_certificate_are_told_in_one_line(
    front: Front, certificates: Certificates
) -> None:
    for authority, own, words in [
        (certificates.other, certificates.client, "certificate verify failed"),
        (certificates.authority, None, "--redis"),
    ]:
        with pytest.raises(RedisError, match=words) as told:
            check_redis(tls(front, authority, own), "n")
        assert "\n" not in str(told.value)


def test_a_client_greets_a_node_within_its_time(url: str) -> None:
    with endpoint(url).client(0.5) as client:
        assert client.connection_pool.connection_kwargs["socket_connect_timeout"] == 0.5
        assert client.ping()


def test_a_connection_to_nobody_is_an_error_of_redis_py() -> None:
    with pytest.raises(redis.ConnectionError):
        endpoint("redis+sentinel://127.0.0.1:1/s").connect()
