"""Rules of operators on whole arrays: shape, order, selection, reduction, products, random values."""
