"""TSP-RCNN: regions of a proposal network are the tokens; each becomes a class and a box."""
