"""The questions that a study of benchmark scores leaves open, answered from one `Analysis`."""
