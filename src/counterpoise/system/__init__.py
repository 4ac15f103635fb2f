"""What is between us and the machine: files, documents, code of the user's own, servers."""
