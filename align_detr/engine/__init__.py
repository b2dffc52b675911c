"""Training: optimizer groups, precision, the trainer and its hooks, averaged weights, processes and run set-up."""
