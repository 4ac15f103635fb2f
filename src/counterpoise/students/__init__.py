"""The student folder as a network: saved, loaded, of the last or of the best epoch."""
