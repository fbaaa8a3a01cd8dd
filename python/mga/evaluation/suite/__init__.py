"""Many models, variants and K on many test sets, in one table."""
