"""Where the teacher's answers come from."""
