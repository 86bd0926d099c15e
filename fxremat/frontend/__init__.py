"""How training comes in: `optimize`, the torch.compile backend, and what guards both."""
