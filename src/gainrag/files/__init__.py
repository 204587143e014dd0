"""Files and folders: is it finished, whose is it, may I go on? Answered here and nowhere else.

places    where an output goes, may it be written there, and what lies beside it
locks     whose is it: one process at a time
streams   files, written whole or not at all; records and JSON objects
folders   the same for folders
meta      is it finished: what an artefact was made from
resuming  may I go on: long stages that may be stopped at any moment
sharding  one stage on several machines
merging   what they made -> one artefact
progress  the one progress bar
"""
