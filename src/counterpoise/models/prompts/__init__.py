"""Networks that take words: what is said of each class, and the fixed classifier that it becomes."""
