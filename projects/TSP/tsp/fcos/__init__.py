"""TSP-FCOS: points of interest of a convolutional head, classified and refined by the encoder."""
