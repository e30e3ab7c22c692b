"""One instance on this machine: where it lives, what runs, who knows of it."""
