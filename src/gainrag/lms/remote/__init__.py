"""Language models behind HTTP: `http://HOST:PORT/v1#NAME`.

    address.py      the name of an endpoint, taken apart
    calls.py        many requests in flight, with deadlines, retries and a budget: the only place that sends any
    failures.py     what can go wrong with a request, and what it means
    kept.py         answers on disk, so that none is asked for again
    generation.py   text, from chat or plain completions
    opening.py      an endpoint's key, what it says of its model, and the language model that stands for it
    facts.py        which engine it is
    scorer.py       losses, from log-probabilities that an adapter asks for: llama_cpp.py, vllm.py, sglang.py, echo.py
    tokens.py       texts as token ids
    positions.py    losses from the most likely tokens at each token of an answer
    examining.py    what an endpoint can do, for `gainrag engines`
    nearby.py       engines that listen on this machine, for `gainrag init`
"""
