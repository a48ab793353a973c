"""What the report page says: numbers as text, findings as sentences, tables as rows of text."""
