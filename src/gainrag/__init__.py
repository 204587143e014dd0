"""gainrag: learn which retrieved passage helps a given language model to the right answer, and use it."""
