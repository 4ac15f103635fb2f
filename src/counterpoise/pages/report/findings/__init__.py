"""What a student's answers on the evaluation images show, beside its teacher's; one kind of task a file."""
