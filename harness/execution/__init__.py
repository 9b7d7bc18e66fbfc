"""Running trainings: one writer, many workers.

A sweep walks from YAML to ONNX in eight stops, each one file:

    1  config/files/sweep_loader.py      the file                   -> Sweep, every mistake named at once
    2  execution/launch.py               Sweep                      -> one launch: what follows, in this order
    3  execution/data_gate.py            its data configurations    -> windows, prepared and audited, or no trial
    4  study/study.py                    its name                   -> Study, new or resumed
    5  study/ask.py                      Study                      -> TrialConfig that nobody ran
    6  execution/coordinator.py          TrialConfig                -> a worker; its epochs -> MLflow, prune, tell
    7  training/trial.py                 windows, features          -> a trained network, in the worker
    8  training/outputs/model_files.py   the network                -> weights, specification, model.onnx

`execution/session.py` starts, finishes and stops the workers of 6, for a sweep and for a confirmation alike.
"""
