"""Files and values as people write them: delimiters, encodings, numbers, times, lists, labels."""
