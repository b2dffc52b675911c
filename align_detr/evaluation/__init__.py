"""Evaluation of detectors, and pictures of runs."""
