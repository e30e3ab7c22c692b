"""What a process has of this machine: the run directory, other processes, signals, descriptors."""
