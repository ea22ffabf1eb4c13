"""One module per change of the tables, numbered; a change that was released is never edited."""
