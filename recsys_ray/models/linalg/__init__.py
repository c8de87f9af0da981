"""The numerical kernels that several models share: sparse products, least squares, graphs, pooling."""
