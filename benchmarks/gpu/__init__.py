"""Fits of rows that lie on a CUDA device."""
