"""Loading and saving of weights, and conversion of official releases."""
