"""A stage on many machines through Ray: `--ray ADDRESS|local`, or [cluster] in a config. Needs gainrag[ray].

settings.py      what may be asked of a cluster
driving.py       the plan that Ray Data runs, what it made before, and its results as the artefact
working.py       what runs on each worker: the model, and its questions

Ray schedules, restarts and keeps account; here is no scheduler. Results are those of one process, byte for byte.
What drives it is imported where it is needed: it takes its time.
"""

from gainrag.cluster.settings import LOCAL, Cluster, check_cluster

__all__ = ["LOCAL", "Cluster", "check_cluster"]
