"""Training: the loop of an arm, its workers on Ray Train or in this process, finished models, the teacher's columns."""
