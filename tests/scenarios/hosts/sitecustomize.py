"""With this directory in PYTHONPATH a process believes to be on the host HOST, as in a UTS namespace of its own."""

import os
import socket

if "HOST" in os.environ:
    socket.gethostname = lambda: os.environ["HOST"]
