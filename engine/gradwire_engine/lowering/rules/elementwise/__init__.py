"""Rules of operators that compute each element of the output from one element of each input."""
