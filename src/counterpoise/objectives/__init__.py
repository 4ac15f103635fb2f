"""What the student is asked to imitate: one published method a file."""
