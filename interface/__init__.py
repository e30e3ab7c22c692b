"""Accepts connections, forwards events, writes replies. Imports neither the worker nor the user's application."""
