"""The passes, their states, and what stands between them."""
