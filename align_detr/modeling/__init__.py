"""The parts of a set-prediction detector, and the registered detectors made of them."""
