"""Measures asgictl against itself and against what people run today."""
