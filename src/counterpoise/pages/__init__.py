"""Pages that a person looks at: the report of runs, and a run while it goes on."""
