"""Records that lie one by one in text: JSON Lines, CSV, lines, paragraphs, files."""
