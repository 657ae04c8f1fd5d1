"""One pass of a kernel, beside BLAS and the memory bus."""
