"""One format of exports, and its runtime, a file."""
