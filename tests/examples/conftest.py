"""A visitor: an HTTP client that keeps cookies, as a browser does."""

import re
import urllib.request
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

from tests.scenarios.test_demo import SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"
BOUNDARY = "a-boundary"


class Visitor:
    """Asks one site."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))

    def open(self, path: str, data: bytes | None = None, content_type: str = "") -> HTTPResponse:
        """Return the response to be read; the caller closes it."""
        headers = {"Content-Type": content_type} if content_type else {}
        response: HTTPResponse = self._opener.open(
            urllib.request.Request(self.url + path, data, headers), timeout=SECONDS
        )
        return response

    def get(self, path: str) -> str:
        with self.open(path) as response:
            return response.read().decode()

    def post(self, path: str, **fields: str) -> str:
        with self.open(path, urlencode(fields).encode()) as response:
            return response.read().decode()

    def refused(self, path: str, data: bytes | None = None) -> int:
        """Return the status of a request that fails."""
        try:
            self.open(path, data).close()
        except HTTPError as error:
            with error:
                return error.code
        raise AssertionError(f"{path} was answered")

    def upload(self, path: str, name: str, content: bytes, **fields: str) -> str:
        """Post a form with a field `file`."""
        parts = [
            b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (k.encode(), v.encode()) for k, v in fields.items()
        ]
        parts.append(b'Content-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % name.encode() + content)
        body = b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY.encode(), part) for part in parts)
        body += b"--%s--\r\n" % BOUNDARY.encode()
        with self.open(path, body, f"multipart/form-data; boundary={BOUNDARY}") as response:
            return response.read().decode()

    def token(self, path: str) -> str:
        """Return the CSRF token of the form on a page of Django's."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path))
        assert found
        return found[1]
