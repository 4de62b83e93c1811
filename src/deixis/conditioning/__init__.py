"""What is said about the image: words to vectors, with their provenance."""
