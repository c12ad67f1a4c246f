"""The operators' command line: what is going on, what became of a document, and what to type next."""
