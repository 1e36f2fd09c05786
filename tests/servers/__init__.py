"""Real servers on loopback, each a context manager that ends what it starts."""
