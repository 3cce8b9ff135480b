"""What a person does with a study: run it, publish it, compare and export dictionaries, clean up."""
