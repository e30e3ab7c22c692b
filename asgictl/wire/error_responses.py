"""What a client reads where no application answers: the texts of our own responses, by status."""

from asgictl.wire.messages import Headers, Response

INVALID_REQUEST = "Invalid HTTP request received."  # 400
HEADERS_TOO_LARGE = "Request head or trailers too large."  # 400
ORIGIN_REFUSED = "This page's origin may not open WebSockets here: see --allowed-origins."  # 403
NO_HTTP = "This application serves no HTTP."  # 404
BODY_TOO_SLOW = "The body did not come in time."  # 408
BODY_TOO_LARGE = "The body is larger than {} bytes."  # 413
APPLICATION_FAILED = "Internal Server Error"  # 500
WORKER_DIED = "The worker that ran this request died."  # 502
INTERFACE_FENCED = "This interface was taken for dead."  # 502
REDIS_REFUSED = "Redis refused this request."  # 503
REDIS_AWAY = "The channel layer is away."  # 503
NO_WORKER_YET = "No worker has been ready yet."  # 503
ENDING = "This interface is ending."  # 503
TOO_MANY = "Too many requests are waiting."  # 503
NO_ANSWER_IN_TIME = "No worker answered in time."  # 504
APPLICATION_TOO_SLOW = "The application took too long."  # 504


def plain_text(text: str) -> tuple[Headers, bytes]:
    """Return headers and body of a response of ours."""
    body = text.encode() + b"\n"
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))], body


def error_response(connection: str, status: int, text: str, attempt: int = 1) -> Response:
    """Return a whole response of ours; 503 says when to try again."""
    headers, body = plain_text(text)
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return Response(connection, 0, status, headers, body, attempt=attempt)
