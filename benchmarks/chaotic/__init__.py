"""What is run to be killed, what kills it, and what is said of that."""
