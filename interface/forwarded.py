"""Whose requests a proxy forwards: X-Forwarded-For and X-Forwarded-Proto, of proxies that are trusted."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from asgictl.wire.messages import Address, Headers

_IS_SECURE = {b"http": False, b"ws": False, b"https": True, b"wss": True}
_SECURE = {"http": "https", "https": "https", "ws": "wss", "wss": "wss"}
_PLAIN = {"http": "http", "https": "http", "ws": "ws", "wss": "ws"}
_OWS = b" \t"  # RFC 9110, section 5.6.3


class Trusted:
    """Proxies whose word counts: addresses and networks, separated by commas; "*" for any; none when it is empty.

    A peer without an address is on a Unix socket, which only this user's processes can open: trusted, unless none is.
    """

    def __init__(self, text: str) -> None:
        names = [each.strip() for each in text.split(",") if each.strip()]
        self._any = "*" in names
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names = set(names)
        for each in names:
            try:
                self._networks.append(ip_network(each, strict=False))
            except ValueError:  # a name, which is compared as it is
                continue

    def trusts(self, peer: Address | None) -> bool:
        """Whether what this peer says of its clients counts."""
        if peer is None:
            return bool(self._names)
        return self._any or self._knows(peer[0])

    def _knows(self, host: str) -> bool:
        if host in self._names:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def client(self, headers: Headers, peer: Address | None) -> Address | None:
        """Return whom a trusted peer's request is from: the last that is no trusted proxy. None if it is no address."""
        values = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
        if not values:
            return peer
        hosts = [each.strip(_OWS) for each in values.split(b",")]
        if self._any:
            return _address(hosts[0])
        return _address(next((each for each in reversed(hosts) if not self._knows(_host(each))), hosts[0]))

    def scheme(self, headers: Headers, scheme: str) -> str:
        """Return with which scheme a trusted peer's client asked, given that of the peer's own connection."""
        values = [value.strip(_OWS).lower() for name, value in headers if name == b"x-forwarded-proto"]
        if not values or values[-1] not in _IS_SECURE:
            return scheme
        return (_SECURE if _IS_SECURE[values[-1]] else _PLAIN)[scheme]


def _host(text: bytes) -> str:
    """Return a node without its port (RFC 7239, section 6)."""
    name = text.decode("latin-1")
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") == 1 else name


def _address(text: bytes) -> Address | None:
    host = _host(text)
    try:
        ip_address(host)
    except ValueError:
        return None
    return host, 0
