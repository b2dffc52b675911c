"""Tensor operations and small modules that every detector shares."""
