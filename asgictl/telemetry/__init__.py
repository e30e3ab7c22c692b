"""What processes count and say of themselves: metrics, logs, and their line to the controller."""
