"""Consumes events, runs the application, replies. Never imports the interface."""
