"""The only place that computes a number we report."""
