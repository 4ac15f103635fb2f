"""Small images, fast: a step as one function of what lies in device memory, and on CUDA as one graph."""
