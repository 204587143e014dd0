"""Language models behind HTTP: `http://HOST:PORT/v1#NAME`.

    address.py      the name of an endpoint, taken apart
    calls.py        many requests in flight, with deadlines, retries and a budget: the only place that sends any
    kept.py         answers on disk, so that none is asked for again
"""
