"""One pass over the weights: histograms, ranks, and the policies that cut by them."""
