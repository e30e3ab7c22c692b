"""What makes the documentation: `make docs`."""
