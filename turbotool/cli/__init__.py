"""Click commands: each parses, calls and prints."""
