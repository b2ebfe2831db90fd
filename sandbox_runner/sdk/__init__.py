"""The folder that is put beside the user's code, on the path of its Python."""
