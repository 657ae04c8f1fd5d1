"""Whole fits, beside the fastest peer on the same data."""
