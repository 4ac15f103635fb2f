"""A run's student, views, teacher and loss in training scripts of other tools: one file a tool."""
