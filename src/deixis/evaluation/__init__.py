"""Any system on any dataset that fits it: which protocol, what it is run on, what becomes of it."""
