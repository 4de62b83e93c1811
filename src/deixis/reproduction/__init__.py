"""The papers' tables: what they print, official weights re-scored, and the same experiments with the minis."""
