"""Planning the kernels that Inductor compiled: one kernel is one operation, one buffer one value."""
