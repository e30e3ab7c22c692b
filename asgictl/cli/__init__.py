"""The command line: parses, wires, and is the only place that exits the process."""
