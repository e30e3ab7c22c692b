"""What one client may have an interface do: constants that no option changes. Those that one does: config.Limits.

Reasons under which the edge's refusals are counted stand here too, so that they are a fixed few.
"""

SLICE_BYTES = 32 << 10  # of a read, parsed at a time: at most 1,100 tiny requests, some 30 ms
FRAMES = 128  # parsed at a time, plain or of a fragmented message: at most 2 ms
TURN_SECONDS = 0.005  # for which all connections together parse what is more than a slice, in a turn of the event loop
# Of bodies that nobody has asked for. Past them a client is not read; as far as it is, it is noticed when it leaves.
HIGH_WATER_BYTES = 64 << 10  # of each; uvicorn's
READ_AHEAD_BYTES = 1 << 20  # of each, while all together are below the next
ALL_READ_AHEAD_BYTES = 32 << 20
GRACE_SECONDS = 0.25  # that a small body may come behind its head before its request is dispatched without it
DRAIN_BYTES = 64 << 10  # of a body that nobody read, which is read so that its connection can be kept
LINGER_SECONDS = 5.0  # for which what a client still sends is read after the last response or close frame; nginx's
HALF_CLOSED_SECONDS = 1.0  # for which a client that has closed its side may wait for its response
CLOSE_SECONDS = 10.0  # in which a client answers a close frame; uvicorn's, websockets'
STALLED_SECONDS = 60.0  # for which a client may take nothing of what is written to it; nginx's send_timeout
SPARE_FILES = 64  # open files that connections leave for Redis, the controller and logs
TICK_SECONDS = 0.5  # between two looks at what is due

TOO_MANY_FILES = "connections closed: open file limit reached (ulimit -n)"
HEADERS_REFUSED = "requests answered 431: headers too large"
HEADERS_CROWDED = "requests answered 431: unfinished headers of all connections too large"
HEADERS_LATE = "requests answered 408: headers not received in time"
SILENT = "connections closed: the client sent nothing"
HANDSHAKE_LATE = "handshakes rejected with 503: deadline exceeded"
INVALID = "requests answered 400"
CONCURRENCY = "requests answered 503: limit_concurrency"
FRAGMENTED = "sockets closed with 1009: too many fragments"
STALLED = "connections closed: the client read nothing"
UNANSWERED_PING = "sockets closed with 1011: no pong"
