"""What a client reads where no application answers: the texts of our own responses, by status."""

from asgictl.wire.messages import Headers, Response

INVALID_REQUEST = "Invalid HTTP request received."  # 400
INVALID_HOST = "The Host header is invalid."  # 400
NOT_ONE_HOST = "A request must have exactly one Host header."  # 400
CONNECT_REFUSED = "CONNECT is not supported."  # 400
ORIGIN_REFUSED = "The Origin of this page is not allowed: see --allowed-origins."  # 403
NO_HTTP = "This application serves no HTTP."  # 404
BODY_TOO_SLOW = "The body was not received in time."  # 408
HEADERS_TOO_SLOW = "The headers were not received in time."  # 408
BODY_TOO_LARGE = "The body is larger than {} bytes."  # 413
HEADERS_TOO_LARGE = "The headers are too large, or too many."  # 431
APPLICATION_FAILED = "Internal Server Error"  # 500
CODING_UNKNOWN = "The only supported transfer coding is chunked."  # 501
WORKER_DIED = "The worker that ran this request died."  # 502
INTERFACE_FENCED = "The lease of this interface expired."  # 502
REDIS_REFUSED = "Redis rejected this request."  # 503
REDIS_AWAY = "The channel layer is unavailable."  # 503
NO_WORKER_YET = "No worker has become ready yet."  # 503
ENDING = "This interface is shutting down."  # 503
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
