"""From a function and a derivative of it to blocks and the kernels that compute them."""
