"""A whole experiment from one config: `gainrag run`.

config           the TOML file as records
surroundings, beginning      what is there, and a config for it: `gainrag init`
names            what systems are called, and what may become a path
questions        what is learned from and tested on
contradictions, validation   what can be checked before compute is spent
rates, costs     how fast a model works, and what a run will ask of it
folder           the run folder: what is there and current is reused
state            a run under way, as its stages see it
stages           the stages in order
making, retrieving, labelling, variants, tuning, systems     what single stages do: data, lists, labels, selectors,
                 their settings, answers
thresholds       with two fixed choices, what the margin of the two is compared with, by system
printing         an evaluation as text
recorded         what meta files say of a run
sharing          a run folder without its data's texts, to pass on
"""
