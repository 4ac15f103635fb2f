"""From a student folder to a device: exports, eight bits, what they cost, and the best that a budget allows."""
