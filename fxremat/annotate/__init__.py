"""What each operation takes: seconds, FLOPs, bytes, workspace."""
