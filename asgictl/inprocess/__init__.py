"""The application inside the server's own process."""
