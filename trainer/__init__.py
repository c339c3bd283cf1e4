"""Countersign's trainer: makes and evaluates weights, on any machine with a URL and a token.

- `__main__`, `worker`: lease work over REST, do it in a child process, report the outcome
- `outputs`, `roots`: register what a training run publishes; compute roots from the bytes used
- `child`, `lease`: the child process, and the lease that is renewed beside it
- `job`: the child process itself: one piece of work from files to files; it knows no registry
- `loop`: one recipe to trained weights, with save points and published steps
- `evaluate`: one frozen suite to answers
- `engine`, `resident`: a small server that speaks the serving subset of vLLM's API
- `pack`: PEFT's output to a clean bundle
- `tracking`: MLflow, which no other module imports
- `data`, `model`, `bottleneck`: data set to examples; base model to a model with an adapter on it
- `cache`: registry files on this machine's disk, by digest
- `device`, `memory`: where the work runs, at which precision, and what it costs
"""
