"""Load for both architectures: locust users and shapes, and what `asgictl compare` measures with them."""
