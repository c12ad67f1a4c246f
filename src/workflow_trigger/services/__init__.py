"""The use cases, one file a verb: they join the domain with the adapters."""
