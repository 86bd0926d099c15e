"""What fxremat offers to trainers of other libraries, each imported only by the module named so."""
