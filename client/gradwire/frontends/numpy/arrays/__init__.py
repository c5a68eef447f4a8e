"""The traced arrays, real and complex, and how they are indexed and assigned."""
