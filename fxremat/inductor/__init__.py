"""Planning the kernels that Inductor compiled: a kernel is an operation, a buffer a value."""
