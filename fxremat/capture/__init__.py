"""AOTAutograd's joint graph as operations over storages."""
