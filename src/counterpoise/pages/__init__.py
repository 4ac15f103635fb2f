"""Pages that a person looks at: the report of runs, a run while it goes on, the student in a browser."""
