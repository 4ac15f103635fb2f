"""Networks: what they are called, how they are built, saved and loaded."""
