"""Pure: the standard library and nothing else; no client, no logger, no reading of the clock."""
