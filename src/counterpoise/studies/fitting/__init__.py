"""The most accurate student that keeps a budget: candidates are measured first, and then distilled."""
