"""The channel layer on Redis Streams: links, leases, an interface's side and a worker's, and their scripts."""
