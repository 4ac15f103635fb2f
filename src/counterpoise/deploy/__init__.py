"""From a student folder to a device or a browser: exports, eight bits, what they cost."""
