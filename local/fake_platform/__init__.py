"""A platform that behaves as the vendor's does, for tests and for `make run`."""
