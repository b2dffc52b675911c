"""TSP-RCNN: regions of a proposal network, classified and refined by the encoder."""
