"""The command line: one file a verb or a few, which parse, call and print."""
