"""What every room may use: parameter checks, configuration, counter-based random numbers."""
