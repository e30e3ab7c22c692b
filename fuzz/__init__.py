"""Fuzzing of what reads bytes that others have chosen: the edge's connections, and the decoders of what is in Redis.

`python -m fuzz --seconds 60` draws inputs with Hypothesis: mutations of the inputs in fuzz/corpus, along their
structure. What fails is shrunk and added to the corpus, which tests/fuzz runs.
"""
