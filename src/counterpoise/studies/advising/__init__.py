"""Which objective, temperature and weight to begin with, tried in short runs on the user's own data."""
