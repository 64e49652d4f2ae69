"""Decoding, preprocessing, runtimes, index and predictors; knows nothing of TorchServe.

A request's way, with the modules that it passes::

    protocol    RawRequest in, Answer out; the Predictor protocol
    isolate     keeps a defect to the row that met it
    deadline    refuses what nobody waits for
    envelope    JSON, form or bare picture
    schemas     what requests and answers look like; validation: what is wrong with them
    products    an encoder's request → products; asked: a recommender's request
    base64_picture  a picture within JSON
    decode      pictures, in threads or on a GPU
    preprocess  the encoder's other inputs
    cache       what was encoded before; forwards: which products share a forward
    runtimes    TorchScript, ONNX Runtime or OpenVINO
    encode      products → embeddings and labels; encoding: one of them, from the outputs
    index       vectors and search; table: the items, known: what is known beyond their columns
    resolve     references → vectors; filters, shelf: what may be answered
    ranking     model, similar, popular; diversity; fallback: the final choice; reasons
    encoder_predictor, recommender_predictor    all of it, for a batch
    warm_up     what is computed before the first request
    load        the encoder from an unpacked archive, load_recommender: the recommender; bundle: its
                files; limits: its settings
    observe     stage times and counts; trace: both ends of a request on one clock
    fake        the same protocol without a model

Nothing is imported here: schemas, limits and fake must be usable without torch.
"""
