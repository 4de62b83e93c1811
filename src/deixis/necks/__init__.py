"""Between backbone and head: IMAFR (EVP section 3.3) and the pyramid join of VPD."""
