"""Files of each kind of signal: readers and writers, whose libraries are imported where they are used."""
