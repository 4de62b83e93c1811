"""From features to an answer: deconvolution decoder, metric bins, referring mask."""
