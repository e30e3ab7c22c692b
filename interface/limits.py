"""What one client may have an interface do: how much it may send, in how many parts, for how long at a time."""

HEADER_BYTES = 1 << 16  # of a request's head, and of trailers; nginx takes 32 KiB, gunicorn 100 lines of 8 KiB
FRAGMENTS = 1024  # of a WebSocket message: 1 MiB in parts of 1 KiB
SLICE_BYTES = 32768  # of a read, parsed at a time: 5,400 empty fragments, 1,100 tiny requests, some 30 ms
TURN_SECONDS = 0.005  # for which one connection may parse in a turn of the event loop
LINGER_SECONDS = 5.0  # for which what a client still sends is read after its socket was closed; nginx's
