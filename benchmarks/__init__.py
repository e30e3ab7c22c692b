"""Measures asgictl against itself and against what people run today; not part of the wheel."""
