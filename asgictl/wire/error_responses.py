"""What a client reads where no application answers: the texts of our own responses, by status."""

from asgictl.wire.messages import Headers, Response

INVALID_REQUEST = "Invalid HTTP request received."  # 400
INVALID_HOST = "The Host header is none."  # 400
NOT_ONE_HOST = "A request has one Host header."  # 400
CONNECT_REFUSED = "CONNECT is for proxies."  # 400
ORIGIN_REFUSED = "This page's origin may not open WebSockets here: see --allowed-origins."  # 403
NO_HTTP = "This application serves no HTTP."  # 404
BODY_TOO_SLOW = "The body did not come in time."  # 408
HEADERS_TOO_SLOW = "The headers did not come in time."  # 408
BODY_TOO_LARGE = "The body is larger than {} bytes."  # 413
HEADERS_TOO_LARGE = "The headers are too large, or too many."  # 431
APPLICATION_FAILED = "Internal Server Error"  # 500
CODING_UNKNOWN = "This server knows no transfer coding but chunked."  # 501
WORKER_DIED = "The worker that ran this request died."  # 502
INTERFACE_FENCED = "This interface was taken for dead."  # 502
REDIS_REFUSED = "Redis refused this request."  # 503
REDIS_AWAY = "The channel layer is away."  # 503
NO_WORKER_YET = "No worker has been ready yet."  # 503
ENDING = "This interface is ending."  # 503
TOO_MANY_CONNECTIONS = "Too many connections are open."  # 503
TOO_MANY = "Too many requests are waiting."  # 503
VERSION_UNKNOWN = "This server speaks HTTP/1.1 and HTTP/1.0."  # 505
NO_ANSWER_IN_TIME = "No worker answered in time."  # 504
APPLICATION_TOO_SLOW = "The application took too long."  # 504
RETRY_AFTER = (b"retry-after", b"1")


def plain_text(text: str, status: int = 0) -> tuple[Headers, bytes]:
    """Return headers and body of a response of ours; 503 says when to try again."""
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return [*headers, RETRY_AFTER] if status == 503 else headers, body


def error_response(connection: str, status: int, text: str, attempt: int = 1) -> Response:
    """Return a whole response of ours."""
    return Response(connection, 0, status, *plain_text(text, status), attempt=attempt)
