"""TSP-FCOS: points of the feature maps are the tokens; each becomes a class and a box."""
