"""What processes leave each other on disk: JSON documents in a folder, by kind and key."""
