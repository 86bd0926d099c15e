"""Steps of many graphs: what is held between them, and one plan for each under one budget."""
