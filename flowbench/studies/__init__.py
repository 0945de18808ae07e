"""Claims of papers, each measured again by one command."""
