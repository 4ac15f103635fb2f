"""The student in a reader's own browser: a folder that is a static site, and the local server that shows it."""
