"""Files and folders: is it finished, whose is it, may I go on? Answered here and nowhere else."""
