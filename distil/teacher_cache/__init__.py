"""What a teacher says about a data set, computed once and read from the disk ever after."""
