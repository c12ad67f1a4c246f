"""The outside world, one place a module. Adapters do not import each other."""
