"""The HTTP API that a shop's front end calls, in front of TorchServe.

A request's way, with the modules that it passes::

    connections sockets: how many, how long
    guard       request id, key, rate, body limit, deadline; headers, metrics and log of the answer
    app         routes; openapi: what they take and give
    parse       the body, checked
    routing     which variant answers this unit
    recommend   model, else fallback; then the exposure
    models      a version's answer, or why there is none
      breaker   leaves a failing version alone
      upstream  connections, deadline, retries; http1: one connection; tokens: TorchServe's
    fallback    popular products, without a model
    shadow      copies to the challenger
    feedback    what shoppers did
    ports       what is asked of the event store

    keys, bucket    who may call, and how often
    log, metrics, tracing
    plan, serve     how its processes are started
"""
