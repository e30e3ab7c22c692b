"""Channel layers: what carries events between processes."""
