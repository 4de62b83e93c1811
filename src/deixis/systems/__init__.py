"""One file per method, joined from the rooms above; systems never import each other."""
